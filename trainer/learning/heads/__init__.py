"""The heads on the state tower before they learn anything, and what the lexical one reads of chunks.

::

    starting   the heads that a recipe asks for, or those of the checkpoint that it goes on from
    rarity     how rare each token is, counted once
    bags       which tokens the texts of a chunk table have
"""
