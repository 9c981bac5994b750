"""OpenAI's vector store search: its schema (``qrag.wire.asking.vector_stores``), to a retrieval and back."""
