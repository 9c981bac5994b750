"""A storage beyond one machine: a catalogue in PostgreSQL, and points of an engine that keeps and searches vectors.

Vectors are stored first and counted afterwards; they are uncounted first and removed afterwards. So whatever dies in
between leaves vectors that nobody counts: no search shows them, and they are overwritten or removed later.
"""
