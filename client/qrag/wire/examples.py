"""Example answers for the OpenAPI document; tests hold them to the schemas."""

from __future__ import annotations

from typing import Any

Example = dict[str, Any]

DOCUMENT: Example = {
    "id": "franklin",
    "title": "Autobiography",
    "collection": "default",
    "metadata": {"year": 1916},
    "chunking": {"mode": "sentences", "max_tokens": None},
    "status": "ready",
    "progress": 1.0,
    "chunks": 2198,
    "tokens": 100574,
    "characters": 438827,
    "sha256": "9124dd490316c914b371e53c30730f1137741757514c76dfc5591320bdb84fe0",
    "error": None,
    "created_at": "2025-11-07T09:00:00.000Z",
    "updated_at": "2025-11-07T09:00:06.000Z",
}
CHUNKS: Example = {
    "document_id": "franklin",
    "chunks": [{"index": 0, "start": 0, "end": 30, "tokens": 8, "text": "[Illustration: FRANKLIN ARMS]"}],
    "next_cursor": "1",
}
COLLECTIONS: Example = {
    "collections": [{"name": "default", "documents": 1, "chunks": 2198, "bytes": 438844}],
}
_CHUNK: Example = {
    "document_id": "franklin",
    "title": "Autobiography",
    "index": 44,
    "start": 11191,
    "end": 11256,
    "text": "He invented the Franklin\nstove, still widely used, and refused to",
    "step": 0,
    "q": 0.663,
    "metadata": {"year": 1916},
}
_NOT_ASKED: Example = {"candidates": None, "heatmap": None}
RESULT: Example = {
    "chunks": [_CHUNK],
    "context": "[1] Autobiography\nHe invented the Franklin\nstove, still widely used, and refused to",
    "citations": [
        {
            "marker": "[1]",
            "document_id": "franklin",
            "title": "Autobiography",
            "index": 44,
            "start": 11191,
            "end": 11256,
        }
    ],
    "steps": [{"step": 0, "q": 0.663, "document_id": "franklin", "index": 44, "sufficiency": None, **_NOT_ASKED}],
    "one_step": None,
    "stopped_by": "sufficient",
    "sufficiency": {"complete": 0.97, "hopeless": 0.02},
    "usage": {"question_tokens": 13, "context_tokens": 25, "candidates": 2198, "exact": True, "truncated_tokens": 0},
    "model": "qrag-minilm-untrained",
    "timings": {"queue_ms": 0.1, "encode_ms": 11.2, "search_ms": 1.3, "total_ms": 13.9},
}
ANSWER: Example = {
    "answer": "Benjamin Franklin invented the Franklin stove [1].",
    "citations": [{**RESULT["citations"][0], "text": _CHUNK["text"]}],
    "unknown_markers": [],
    "sufficiency": RESULT["sufficiency"],
    "evidence_likely_missing": False,
    "finish_reason": "stop",
    "language_model": "llama3.2",
    "generation_ms": 812.4,
    "retrieval": RESULT,
}
SEARCH_PAGE: Example = {
    "object": "vector_store.search_results.page",
    "search_query": ["Who invented the Franklin stove?"],
    "data": [
        {
            "file_id": "franklin",
            "filename": "Autobiography",
            "score": 0.663,
            "attributes": {"year": 1916},
            "content": [{"type": "text", "text": _CHUNK["text"]}],
        }
    ],
    "has_more": False,
    "next_page": None,
}
MODEL: Example = {
    "name": "qrag-minilm-untrained",
    "checkpoint": "configured",
    "base_model": "sentence-transformers/all-MiniLM-L6-v2",
    "dimension": 384,
    "device": "cpu",
    "positions": {"mode": "none", "delta": 10.0, "ell": 9.0, "levels": 18, "rope_base": 10000.0},
    "stopping": {
        "rules": ["threshold", "action", "sufficiency"],
        "default_rule": "sufficiency",
        "step_cost": 0.05,
        "budget": 6,
    },
    "max_question_tokens": 256,
    "max_chunk_tokens": 510,
    "max_state_tokens": 512,
    "max_steps": 32,
    "max_beam_width": 16,
    "max_body_bytes": 134217728,
    "training": None,
}
CHECKPOINTS: Example = {
    "served": "configured",
    "available": ["configured", "tuned-on-minutes"],
    "change": {"checkpoint": "tuned-on-minutes", "state": "embedding", "progress": 0.42, "error": None},
    "vector_sets": 2,
}
EVENTS = 'event: step\ndata: {"step": 0, "q": 0.663, ...}\n\nevent: result\ndata: {"chunks": [...], ...}\n\n'
ANSWER_EVENTS = (
    'event: step\ndata: {"step": 0, "q": 0.663, ...}\n\nevent: retrieval\ndata: {"chunks": [...], ...}\n\n'
    'event: token\ndata: {"text": "Benjamin"}\n\nevent: result\ndata: {"answer": "Benjamin ...", ...}\n\n'
)
