"""A component for Haystack: ``pip install './client[haystack]'``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import JsonValue

from qrag import AsyncClient, Client, RetrieveOptions, RetrieveOut, Stop
from qrag.client.calls import plain
from qrag.client.transport import DEFAULT_TIMEOUT, DEFAULT_URL
from qrag.integrations.evidence import chunk_id, metadata
from qrag.wire.filters import Filter, LocationFilter

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}. Install Haystack, from the checkout of Q-RAG: pip install './client[haystack]'", name=error.name
    ) from error

KEY = Secret.from_env_var("QRAG_API_KEY", strict=False)
"""The environment variable of the API key; it may be unset."""


@component
class QRagRetriever:
    """Retrieves the evidence for a question as documents whose scores are Q-values, in the order of the service's
    answer; and says why the episode ended and whether the evidence is complete.

    The options are those of :class:`~qrag.RetrieveOptions` that are not about a single call; ``run`` takes
    ``collection``, ``document_ids`` and ``filter`` for one question, in place of those given here, a
    ``continuation`` and a ``focus``. Metadata is that of
    :func:`~qrag.integrations.evidence.metadata`. ``timeout`` is in seconds.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: Secret | None = KEY,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        collection: str | None = None,
        document_ids: Sequence[str] | None = None,
        filter: Filter | Mapping[str, JsonValue] | None = None,
        location: LocationFilter | Mapping[str, JsonValue] | None = None,
        max_steps: int | None = None,
        stop: Stop | None = None,
        beam_width: int | None = None,
        rerank: int | None = None,
        max_context_tokens: int | None = None,
        order: Literal["document", "selection"] | None = None,
        decompose: bool | None = None,
    ) -> None:
        self.base_url = base_url
        self.api_key = api_key
        self.timeout = timeout
        self.options: RetrieveOptions = {
            "collection": collection,
            "document_ids": document_ids,
            "filter": filter,
            "location": location,
            "max_steps": max_steps,
            "stop": stop,
            "beam_width": beam_width,
            "rerank": rerank,
            "max_context_tokens": max_context_tokens,
            "order": order,
            "decompose": decompose,
        }

    def to_dict(self) -> dict[str, Any]:
        """The component as a dictionary, for the YAML of a pipeline.

        Raises :class:`ValueError` for a key that is given as a token.
        """
        options = {name: plain(value) for name, value in self.options.items()}
        return default_to_dict(self, base_url=self.base_url, api_key=self.api_key, timeout=self.timeout, **options)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The component from the dictionary that :meth:`to_dict` returned.

        Raises what :class:`~qrag.Stop` and Haystack raise for parameters that do not fit.
        """
        parameters = data.get("init_parameters", {})
        stop = parameters.get("stop")
        if stop is not None:
            parameters = parameters | {"stop": Stop.model_validate(stop)}
        return default_from_dict(cls, data | {"init_parameters": parameters})

    @component.output_types(
        documents=list[Document], stopped_by=str, sufficiency=dict[str, float] | None, continuation=str | None
    )
    def run(
        self,
        query: str,
        collection: str | None = None,
        document_ids: list[str] | None = None,
        filter: dict[str, Any] | None = None,
        continuation: str | None = None,
        focus: str | None = None,
    ) -> dict[str, Any]:
        """Retrieve ``documents``, ``stopped_by``, ``sufficiency``, None where the checkpoint was not calibrated, and
        the ``continuation`` with which a further run goes on.

        Raises what :class:`~qrag.Client` raises.
        """
        options = self._merged(collection, document_ids, filter, continuation, focus)
        with Client(self.base_url, self._key(), timeout=self.timeout) as client:
            return _outputs(client.retrieve(query, **options))

    @component.output_types(
        documents=list[Document], stopped_by=str, sufficiency=dict[str, float] | None, continuation=str | None
    )
    async def run_async(
        self,
        query: str,
        collection: str | None = None,
        document_ids: list[str] | None = None,
        filter: dict[str, Any] | None = None,
        continuation: str | None = None,
        focus: str | None = None,
    ) -> dict[str, Any]:
        """The coroutine of :meth:`run`."""
        options = self._merged(collection, document_ids, filter, continuation, focus)
        async with AsyncClient(self.base_url, self._key(), timeout=self.timeout) as client:
            return _outputs(await client.retrieve(query, **options))

    def _key(self) -> str | None:
        return None if self.api_key is None else self.api_key.resolve_value()

    def _merged(
        self,
        collection: str | None,
        document_ids: list[str] | None,
        filter: dict[str, Any] | None,
        continuation: str | None,
        focus: str | None,
    ) -> RetrieveOptions:
        options = self.options.copy()
        if collection is not None:
            options["collection"] = collection
        if document_ids is not None:
            options["document_ids"] = document_ids
        if filter is not None:
            options["filter"] = filter
        if continuation is not None:
            options["continuation"] = continuation
        if focus is not None:
            options["focus"] = focus
        if continuation is not None or focus is not None:
            options["decompose"] = None  # it is one question already
        return options


def _outputs(answer: RetrieveOut) -> dict[str, Any]:
    documents = [
        Document(id=chunk_id(chunk), content=chunk.text, meta=metadata(chunk, answer), score=chunk.q)
        for chunk in answer.chunks
    ]
    return {
        "documents": documents,
        "stopped_by": answer.stopped_by,
        "sufficiency": answer.sufficiency and answer.sufficiency.model_dump(),
        "continuation": answer.continuation,
    }
