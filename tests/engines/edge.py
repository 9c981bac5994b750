"""Qdrant's own engine in this process (``qdrant-edge-py``), with the calls of ``qdrant-client`` that the product makes.

One shard a collection, in a folder. Values, filters and exactness are the engine's; shards and replicas are not there.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import qdrant_edge as edge
from qdrant_client.http import models
from qdrant_client.http.exceptions import UnexpectedResponse

SCHEMAS = {
    models.PayloadSchemaType.INTEGER: edge.PayloadSchemaType.Integer,
    models.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
    models.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
}


class EdgeClient:
    """Collections below a folder; those that are there already are opened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.RLock()
        self._shards = {path.name: edge.EdgeShard.load(str(path)) for path in sorted(directory.iterdir())}

    def close(self) -> None:
        with self._lock:
            for shard in self._shards.values():
                shard.close()
            self._shards.clear()

    # Collections

    def collection_exists(self, collection_name: str) -> bool:
        return collection_name in self._shards

    def get_collections(self) -> models.CollectionsResponse:
        return models.CollectionsResponse(
            collections=[models.CollectionDescription(name=name) for name in self._shards]
        )

    def create_collection(
        self,
        collection_name: str,
        vectors_config: Mapping[str, models.VectorParams],
        sparse_vectors_config: Mapping[str, models.SparseVectorParams],
        hnsw_config: models.HnswConfigDiff | None = None,
        **others: Any,
    ) -> bool:
        del hnsw_config, others  # a shard is neither copied nor indexed
        config = edge.EdgeConfig(
            vectors={
                name: edge.EdgeVectorParams(size=params.size, distance=edge.Distance.Dot)
                for name, params in vectors_config.items()
                if params.distance == models.Distance.DOT
            },
            sparse_vectors={name: edge.EdgeSparseVectorParams() for name in sparse_vectors_config},
        )
        path = self._directory / collection_name
        path.mkdir()
        with self._lock:
            self._shards[collection_name] = edge.EdgeShard.create(str(path), config)
        return True

    def delete_collection(self, collection_name: str, **others: Any) -> bool:
        del others
        with self._lock:
            shard = self._shards.pop(collection_name, None)
            if shard is not None:
                shard.close()
                shutil.rmtree(self._directory / collection_name)
        return shard is not None

    def create_payload_index(
        self, collection_name: str, field_name: str, field_schema: models.PayloadSchemaType, **others: Any
    ) -> models.UpdateResult:
        del others
        return self._update(collection_name, edge.UpdateOperation.create_field_index(field_name, SCHEMAS[field_schema]))

    # Points

    def upsert(self, collection_name: str, points: Sequence[models.PointStruct], **others: Any) -> models.UpdateResult:
        del others
        written = [edge.Point(point.id, _vectors(point.vector), point.payload) for point in points]
        return self._update(collection_name, edge.UpdateOperation.upsert_points(written))

    def delete(
        self, collection_name: str, points_selector: models.FilterSelector, **others: Any
    ) -> models.UpdateResult:
        del others
        condition = _filter(points_selector.filter)
        assert condition is not None
        return self._update(collection_name, edge.UpdateOperation.delete_points_by_filter(condition))

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[Any],
        with_payload: Any = True,
        with_vectors: Any = False,
        **others: Any,
    ) -> list[models.Record]:
        del others
        with self._lock:
            records = self._shard(collection_name).retrieve(list(ids), with_payload, with_vectors)
        return [_record(record) for record in records]

    def scroll(
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        offset: Any = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **others: Any,
    ) -> tuple[list[models.Record], Any]:
        del others
        request = edge.ScrollRequest(offset, limit, _filter(scroll_filter), with_payload, with_vectors)
        with self._lock:
            records, following = self._shard(collection_name).scroll(request)
        return [_record(record) for record in records], following

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **others: Any
    ) -> list[models.QueryResponse]:
        del others
        with self._lock:
            found = self._shard(collection_name).query_batch(
                edge.QueryBatchRequest([_request(request) for request in requests])
            )
        return [models.QueryResponse(points=[_scored(point) for point in points]) for points in found]

    def _shard(self, name: str) -> edge.EdgeShard:
        if name not in self._shards:
            raise UnexpectedResponse(404, "Not Found", b"no such collection", httpx.Headers())
        return self._shards[name]

    def _update(self, name: str, operation: edge.UpdateOperation) -> models.UpdateResult:
        with self._lock:
            self._shard(name).update(operation)
        return models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


def _request(request: models.QueryRequest) -> edge.QueryRequest:
    query: Any = request.query
    if isinstance(query, models.NearestQuery):
        query = query.nearest
    assert request.limit is not None
    return edge.QueryRequest(
        request.limit,
        query=edge.Query.Nearest(_vector(query), using=request.using),
        filter=_filter(request.filter),
        params=edge.SearchParams(exact=bool(request.params and request.params.exact)),
        with_vector=bool(request.with_vector),
        with_payload=bool(request.with_payload),
    )


def _vectors(vectors: Any) -> dict[str, Any]:
    return {name: _vector(vector) for name, vector in vectors.items()}


def _vector(vector: Any) -> Any:
    return edge.SparseVector(vector.indices, vector.values) if isinstance(vector, models.SparseVector) else vector


def _read(vectors: Any) -> Any:
    return vectors and {
        name: models.SparseVector(indices=vector.indices, values=vector.values)
        if isinstance(vector, edge.SparseVector)
        else vector
        for name, vector in vectors.items()
    }


def _record(record: edge.Record) -> models.Record:
    return models.Record(id=record.id, payload=record.payload, vector=_read(record.vector))


def _scored(point: edge.ScoredPoint) -> models.ScoredPoint:
    return models.ScoredPoint(
        id=point.id, version=point.version, score=point.score, payload=point.payload, vector=_read(point.vector)
    )


def _filter(condition: models.Filter | None) -> edge.Filter | None:
    if condition is None:
        return None
    return edge.Filter(
        must=_conditions(condition.must), should=_conditions(condition.should), must_not=_conditions(condition.must_not)
    )


def _conditions(conditions: Any) -> list[Any] | None:
    return None if conditions is None else [_condition(one) for one in conditions]


def _condition(condition: Any) -> Any:
    if isinstance(condition, models.Filter):
        return _filter(condition)
    if isinstance(condition, models.HasIdCondition):
        return edge.HasIdCondition(set(condition.has_id))
    assert isinstance(condition, models.FieldCondition)
    match: Any = None
    if isinstance(condition.match, models.MatchAny):
        match = edge.MatchAny(condition.match.any)
    elif isinstance(condition.match, models.MatchValue):
        match = edge.MatchValue(condition.match.value)
    borders = condition.range
    assert borders is None or isinstance(borders, models.Range)
    within = None
    if borders is not None:
        within = edge.RangeFloat(gte=borders.gte, gt=borders.gt, lte=borders.lte, lt=borders.lt)
    return edge.FieldCondition(condition.key, match=match, range=within)
