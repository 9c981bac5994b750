"""The summands of Q. Another one is a class with the two methods of a :class:`~index.search.signals.protocol.Signal`.

::

    protocol        what a signal is, and what it reads of chunks
    inner_product   states and embeddings, with positions
    lexical         tokens that the state weighs
"""
