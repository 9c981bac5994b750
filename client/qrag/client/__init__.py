"""The two clients, one blocking and one awaiting, over the same calls and flows: :mod:`qrag` exports them.

``options`` -> ``calls`` (a request as a value, and the reader of its answer) -> ``flows`` (repeat, wait, page) ->
``blocking`` or ``awaiting``, which alone touch the network.
"""
