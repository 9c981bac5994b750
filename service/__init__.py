"""The HTTP service: requests in, problem+json or evidence chunks out.

Everything that knows about HTTP lives here; documents, chunks and Q-values live in :mod:`index`.
"""
