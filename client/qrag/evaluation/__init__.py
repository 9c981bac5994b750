"""An evaluation on one's own questions: how much of the expected evidence a running service finds, beside its peers.

Data flows one way: ``questions`` (a file) and ``library`` (the chunks that the service has) -> ``resolving`` (which
chunks would count) -> ``measuring`` (what the service selects, several questions ``together``) and ``bm25`` (a peer
computed here) -> ``figures`` -> ``report``, which ``comparing`` sets beside an earlier one, and which ``markdown`` and
``page`` (with ``plots`` and ``styles``) write out. ``answering`` does the same for what its language model writes.
Nothing here prints.
"""
