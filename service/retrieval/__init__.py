"""A retrieval, from a request's body to its response: the same for HTTP, OpenAI's clients, MCP and answers.

``session`` looks up the scope and the stop rule and lets :mod:`service.engine` run the episode; ``past`` looks
up the chunks that it begins with, and ``continuation`` is what another call goes on from. ``results`` turns
its steps into a response, at once or one by one, and ``context`` its chunks into one text with markers to cite.
``splitting`` lets the language model split a question, ``parts`` joins what was found for each part, and ``asking``
answers one question or a batch of them.
``noting`` counts what came of it, and keeps the question where that is wanted.
"""
