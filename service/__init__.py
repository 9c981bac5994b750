"""The HTTP service: requests in, evidence or problem+json out.

Everything that knows about HTTP is here; documents, chunks and Q-values are in :mod:`index`, and what crosses the wire
is in :mod:`qrag.wire`. A request passes these rooms:

- ``observing`` gives it an id, times it and notes it;
- ``http`` lets it in: its key, the right of its route, its size;
- ``routes``, or ``mcp`` for tools, check it and answer it;
- an upload goes through ``intake``, which reads files in processes of their own, into the store;
- a question goes to ``retrieval``, also from ``openai`` and ``answering``, and from there to the ``engine``, which runs
  all episodes together.

``page`` holds the files of the page at ``/``. ``services`` opens and closes all parts, ``app`` puts routes and gate
around them, ``openapi`` describes the application, and ``__main__`` is the command line. The rooms share ``settings``,
``keys``, ``errors``, ``host_names`` (hosts and ports) and ``language_model`` (the client of one).
"""
