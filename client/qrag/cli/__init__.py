"""The command ``qrag``: index files, ask questions, evaluate and look after the service from a shell.

``main`` parses the arguments and turns errors into exit statuses; ``indexing``, ``syncing``, ``asking``,
``evaluating``, ``looking``, ``feedback`` and ``questions`` carry out the commands with a
:class:`~qrag.client.blocking.Client`; ``terminal`` prints. Nobody imports this package.
"""
