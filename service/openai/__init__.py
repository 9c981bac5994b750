"""OpenAI's vector store search: its schema (:mod:`qrag.wire.vector_stores`) translated to a retrieval and back."""
