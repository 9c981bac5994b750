"""Questions with accepted answers: what the service's language model writes for them, and how well that fits.

``asking`` has the service answer, ``matching`` compares the words.
"""
