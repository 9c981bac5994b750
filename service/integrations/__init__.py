"""Retrievers for LangChain, LlamaIndex and Haystack, on top of :mod:`service.client`.

Each is a module and an extra of its own, and needs none of the others::

    pip install 'qrag[langchain]'    from service.integrations.langchain import QRagRetriever
    pip install 'qrag[llama-index]'  from service.integrations.llama_index import QRagRetriever
    pip install 'qrag[haystack]'     from service.integrations.haystack import QRagRetriever

Every question opens a connection of its own: a retriever holds nothing that would have to be closed, can be copied, and
can be used from every thread and event loop. What the client raises, it raises.
"""
