"""An evaluation on one's own questions: how much of the expected evidence a running service finds, beside its peers.

Data flows one way: ``questions`` (a file) and ``library`` (the chunks that the service has) -> ``resolving`` (which
chunks would count) -> ``measuring`` (the answers of the service, several questions at a time) and ``bm25`` (a peer
computed here) -> ``figures`` -> ``report``, which ``comparing`` sets beside an earlier one, and which ``markdown`` and
``page`` (with ``plots`` and ``styles``) write out. Nothing here prints.
"""
