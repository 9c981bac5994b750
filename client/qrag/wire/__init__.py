"""What crosses HTTP, and the words that both sides use: requests and answers, filters, chunking, stop rules, problems.

Light to import: pydantic alone. The service validates by these models, and the client reads answers by them.
"""
