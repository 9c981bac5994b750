"""Reading all candidates: embeddings, codes and bags in memory or mapped, and the loops over them.

::

    scan, device_scan   each candidate times each state's query, once
    matrices            embeddings laid end to end, with codes, halves and bags
    codes, bags         what is read instead of embeddings; which tokens a chunk has
    kernels, compiling, threads   the compiled loops, and who runs them
"""
