"""The two clients, one blocking and one awaiting, over the same calls and flows: :mod:`qrag` exports them.

Data flows one way: ``options`` (keyword arguments) and ``uploads`` (files) -> ``calls`` (a request as a value, and the
reader of its answer) -> ``flows`` (retries, waiting, batches) -> ``blocking`` or ``awaiting``, which alone touch the
network, with the settings of ``transport``. ``events`` reads streamed answers, ``errors`` is the exception tree.
"""
