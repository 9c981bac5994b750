"""The two encoders of a checkpoint: texts to tokens, tokens to embeddings.

::

    checkpoint, writing   the directory, read and verified, and written
    loading               from a directory to an encoder on a device
    encoder               states and chunks in, embeddings out
    tower                 one encoder of the two, in batches
    packing               inputs laid end to end, so that a CPU computes nothing for padding
    tokenizer             a model's tokenizer
"""
