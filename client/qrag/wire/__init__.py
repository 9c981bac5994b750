"""Requests, answers and the words that both sides use: filters, chunking, stop rules, endings, media types, problems.

Light to import: it needs pydantic alone. The service validates requests with these models, the client reads answers
with them, and :mod:`index` and :mod:`trainer` use the words. ``asking`` has further ways to ask, ``checks`` questions
with their evidence, and gates.
"""
