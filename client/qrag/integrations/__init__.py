"""Retrievers for LangChain, LlamaIndex and Haystack, on top of :mod:`qrag.client`.

Each is a module and an extra of its own, and needs none of the others::

    pip install 'qrag-client[langchain]'    from qrag.integrations.langchain import QRagRetriever
    pip install 'qrag-client[llama-index]'  from qrag.integrations.llama_index import QRagRetriever
    pip install 'qrag-client[haystack]'     from qrag.integrations.haystack import QRagRetriever

Every question opens a connection of its own: a retriever holds nothing that would have to be closed, can be copied, and
can be used from every thread and event loop. What the client raises, it raises.
"""
