"""A retriever for LangChain: ``pip install './client[langchain]'``."""

from __future__ import annotations

from typing import Any, Literal, Unpack

from pydantic import BaseModel, ConfigDict, SecretStr

from qrag import AsyncClient, Client, RetrieveOptions, RetrieveOut, Stop
from qrag.client.calls import plain
from qrag.client.transport import DEFAULT_TIMEOUT, DEFAULT_URL
from qrag.integrations.evidence import chunk_id, metadata
from qrag.wire.filters import Filter, LocationFilter

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}. Install LangChain, from the checkout of Q-RAG: pip install './client[langchain]'", name=error.name
    ) from error


class QRagRetriever(BaseRetriever):
    """Retrieves the evidence for a question, in the order in which the service answers.

    The options are those of :class:`~qrag.RetrieveOptions`; ``invoke`` and its variants take them as well, for
    one question. Metadata is that of :func:`~qrag.integrations.evidence.metadata`.

    Raises what :class:`~qrag.Client` raises.
    """

    model_config = ConfigDict(extra="forbid")  # LangChain ignores what is misspelt

    base_url: str = DEFAULT_URL
    api_key: SecretStr | None = None
    timeout: float = DEFAULT_TIMEOUT
    """Seconds."""
    collection: str | None = None
    document_ids: list[str] | None = None
    filter: Filter | dict[str, Any] | None = None
    location: LocationFilter | dict[str, Any] | None = None
    max_steps: int | None = None
    stop: Stop | None = None
    beam_width: int | None = None
    rerank: int | None = None
    max_context_tokens: int | None = None
    order: Literal["document", "selection"] | None = None
    decompose: bool | None = None

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True: the key is left out, and loaded as the secret ``QRAG_API_KEY``."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The fields that are secrets, and the names of the secrets."""
        return {"api_key": "QRAG_API_KEY"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The options that are models, as the plain JSON that LangChain can load."""
        models = {"filter": self.filter, "location": self.location, "stop": self.stop}
        return {name: plain(value) for name, value in models.items() if isinstance(value, BaseModel)}

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
        **options: Unpack[RetrieveOptions],
    ) -> list[Document]:
        with Client(self.base_url, self._key(), timeout=self.timeout) as client:
            return _documents(client.retrieve(query, **self._merged(options)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002
        **options: Unpack[RetrieveOptions],
    ) -> list[Document]:
        async with AsyncClient(self.base_url, self._key(), timeout=self.timeout) as client:
            return _documents(await client.retrieve(query, **self._merged(options)))

    def _key(self) -> str | None:
        return None if self.api_key is None else self.api_key.get_secret_value()

    def _merged(self, options: RetrieveOptions) -> RetrieveOptions:
        # What goes on, or has a focus, is one question already.
        is_one = options.get("continuation") is not None or options.get("focus") is not None
        return {
            "collection": self.collection,
            "document_ids": self.document_ids,
            "filter": self.filter,
            "location": self.location,
            "max_steps": self.max_steps,
            "stop": self.stop,
            "beam_width": self.beam_width,
            "rerank": self.rerank,
            "max_context_tokens": self.max_context_tokens,
            "order": self.order,
            "decompose": None if is_one else self.decompose,
            **options,
        }


def _documents(answer: RetrieveOut) -> list[Document]:
    return [
        Document(id=chunk_id(chunk), page_content=chunk.text, metadata=metadata(chunk, answer))
        for chunk in answer.chunks
    ]
