"""A retriever for LlamaIndex: ``pip install './client[llama-index]'``."""

from __future__ import annotations

from typing import Unpack

from qrag import AsyncClient, Client, RetrieveOptions, RetrieveOut, SelectedChunk
from qrag.client.transport import DEFAULT_TIMEOUT, DEFAULT_URL
from qrag.integrations.evidence import chunk_id, description, metadata

try:
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}. Install LlamaIndex, from the checkout of Q-RAG: pip install './client[llama-index]'", name=error.name
    ) from error


class QRagRetriever(BaseRetriever):
    """Retrieves the evidence for a question as nodes whose scores are Q-values, in the order of the service's answer.

    Metadata is that of :func:`~qrag.integrations.evidence.metadata`; a language model is shown the document's own
    metadata and the title. ``timeout`` is in seconds.

    Raises what :class:`~qrag.Client` raises.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        callback_manager: CallbackManager | None = None,
        **options: Unpack[RetrieveOptions],
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self._base_url = base_url
        self._api_key = api_key
        self._timeout = timeout
        self._options = options

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        with Client(self._base_url, self._api_key, timeout=self._timeout) as client:
            return _nodes(client.retrieve(query_bundle.query_str, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        async with AsyncClient(self._base_url, self._api_key, timeout=self._timeout) as client:
            return _nodes(await client.retrieve(query_bundle.query_str, **self._options))


def _nodes(answer: RetrieveOut) -> list[NodeWithScore]:
    return [NodeWithScore(node=_node(chunk, answer), score=chunk.q) for chunk in answer.chunks]


def _node(chunk: SelectedChunk, answer: RetrieveOut) -> TextNode:
    unread = set(description(chunk, answer)) - ({"title"} if chunk.title else set())
    return TextNode(
        id_=chunk_id(chunk),
        text=chunk.text,
        start_char_idx=chunk.start,
        end_char_idx=chunk.end,
        metadata=metadata(chunk, answer),
        excluded_llm_metadata_keys=sorted(unread),
        excluded_embed_metadata_keys=sorted(unread),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.document_id)},
    )
