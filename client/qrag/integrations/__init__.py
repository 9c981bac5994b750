"""Retrievers for LangChain, LlamaIndex and Haystack, on top of :mod:`qrag.client`.

Each is a module and an extra of its own, and needs none of the others. They are installed from the tree, for instance
with ``pip install './client[langchain]'``::

    langchain    from qrag.integrations.langchain import QRagRetriever
    llama-index  from qrag.integrations.llama_index import QRagRetriever
    haystack     from qrag.integrations.haystack import QRagRetriever

Every question opens a connection of its own: a retriever holds nothing that has to be closed, can be copied, and can be
used from every thread and event loop. It raises what the client raises. :mod:`~qrag.integrations.evidence` has what the
three share: the id and the metadata of a chunk.
"""
