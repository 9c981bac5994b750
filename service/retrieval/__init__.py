"""A retrieval, from a request's body to what is answered: the same for HTTP, OpenAI's clients, MCP and answers.

``session`` looks up the scope and the stop rule, lets :mod:`service.engine` run the episode, and makes an answer of its
steps, at once or one by one. ``context`` renders the selected chunks as one text with markers to cite.
"""
