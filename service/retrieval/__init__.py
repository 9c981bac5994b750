"""A retrieval, from a request's body to what is answered: the same for HTTP, OpenAI's clients, MCP and answers.

``session`` looks up the scope and the stop rule and lets :mod:`service.engine` run the episode. ``results`` makes an
answer of its steps, at once or one by one, and ``context`` one text of its chunks, with markers to cite.
"""
