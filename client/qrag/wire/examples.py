"""Example answers for the OpenAPI document, as the shipped checkpoint gives them; tests hold them to the schemas."""

from __future__ import annotations

from typing import Any

Example = dict[str, Any]
"""A JSON object."""

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
    "warnings": [],
    "replacement": None,
    "created_at": "2025-11-07T09:00:00.000Z",
    "updated_at": "2025-11-07T09:00:06.000Z",
}
_NOWHERE: Example = {"page": None, "label": None, "headings": [], "sheet": None, "row": None}
"""The location of what was read from plain text."""

CHUNKS: Example = {
    "document_id": "franklin",
    "chunks": [
        {
            "index": 0,
            "start": 0,
            "end": 111,
            "tokens": 22,
            "text": "[Illustration: FRANKLIN ARMS]\n\n[Illustration: FRANKLIN SEAL]\n\n"
            "[Illustration: Franklin at the Court of Louis XVI",
            "location": _NOWHERE,
        }
    ],
    "next_cursor": "1",
}
COLLECTIONS: Example = {
    "collections": [{"name": "default", "documents": 1, "chunks": 2198, "bytes": 438844}],
}
_TEXT = (
    "He invented the Franklin\nstove, still widely used, and refused to patent it. He possessed a\nmasterly "
    "shrewdness in business and practical affairs. Carlyle called\nhim the father of all the Yankees. He founded a "
    "fire company, assisted\nin founding a hospital, and improved the cleaning and lighting of\nstreets."
)
_CHUNK: Example = {
    "document_id": "franklin",
    "title": "Autobiography",
    "index": 44,
    "start": 11191,
    "end": 11498,
    "text": _TEXT,
    "step": 0,
    "q": 0.896,
    "metadata": {"year": 1916},
    "location": _NOWHERE,
    "parts": [],
}
_WITHOUT_TRACE: Example = {"candidates": None, "parts": None, "rerank_score": None, "heatmap": None}
"""The fields of a step that a request without ``trace`` and ``heatmap`` leaves empty."""

RESULT: Example = {
    "focus": None,
    "chunks": [_CHUNK],
    "context": f"[1] Autobiography\n{_TEXT}",
    "citations": [
        {
            "marker": "[1]",
            "document_id": "franklin",
            "title": "Autobiography",
            "index": 44,
            "start": 11191,
            "end": 11498,
            "location": _NOWHERE,
        }
    ],
    "steps": [
        {
            "step": 0,
            "q": 0.896,
            "document_id": "franklin",
            "index": 44,
            "sufficiency": {"complete": 0.0, "hopeless": 0.07},
            **_WITHOUT_TRACE,
        }
    ],
    "one_step": None,
    "stopped_by": "sufficient",
    "sufficiency": {"complete": 0.96, "hopeless": 0.02},
    "continuation": "3vZ0eJxdjkEKwjAQRe8ya1Gq4MITuHQlCHYRkqkdmmTamVQF8e4mVkTczfDf_-8",
    "parts": None,
    "warnings": [],
    "usage": {"question_tokens": 6, "context_tokens": 67, "candidates": 2198, "exact": True, "truncated_tokens": 0},
    "model": "qrag-bge-small",
    "timings": {
        "queue_ms": 0.1,
        "encode_ms": 11.2,
        "search_ms": 1.3,
        "decompose_ms": 0.0,
        "rerank_ms": 0.0,
        "total_ms": 13.9,
    },
}
BATCH: Example = {
    "items": [
        {"result": RESULT, "problem": None},
        {
            "result": None,
            "problem": {
                "type": "about:blank",
                "title": "Question is too long",
                "status": 422,
                "code": "question_too_long",
                "detail": "The question has 300 tokens and may have 256. Shorten it; long material belongs into a "
                "document.",
                "errors": None,
            },
        },
    ]
}
FEEDBACK_IN: Example = {
    "question": "What did Franklin invent?",
    "collection": "default",
    "chunks": [{"document_id": "franklin", "index": 44, "helpful": True}],
    "answer": "The Franklin stove.",
    "comment": "The first chunk alone would do.",
}
FEEDBACK: Example = {
    "id": "fb-2f0b95be835005f7b929b42d",
    "created_at": "2025-11-07T09:10:00.000Z",
    "collection": "default",
    "question": "What did Franklin invent?",
    "checkpoint": {
        "name": "qrag-bge-small",
        "fingerprint": "f44ef64dd223c9a759561494b3b71e32a071ce4bb0c9a9c6372b1fac4149abd4",
    },
    "chunks": [{"document_id": "franklin", "index": 44, "text": _TEXT, "helpful": True}],
    "answer": "The Franklin stove.",
    "comment": "The first chunk alone would do.",
}
QUESTION: Example = {
    "id": "qu-5c1d9b0f7a2e4c6d8e0f1a2b",
    "asked_at": "2025-11-07T09:09:30.000Z",
    "collection": "default",
    "question": "What did Franklin invent?",
    "checkpoint": FEEDBACK["checkpoint"],
    "chunks": [{"document_id": "franklin", "index": 44}],
    "found_nothing": False,
    "stopped_by": "sufficient",
    "sufficiency": RESULT["sufficiency"],
    "seconds": 0.0139,
    "request_id": "9f2c7d31b0a84e6f8d5a1c3e7b9d2f40",
    "feedback": [FEEDBACK],
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
            "score": 0.896,
            "attributes": {"year": 1916, "page": 12, "headings": "Part One > Philadelphia"},
            "content": [{"type": "text", "text": _CHUNK["text"]}],
        }
    ],
    "has_more": False,
    "next_page": None,
}
SERVED_MODEL: Example = {"id": "qrag-bge-small", "object": "model", "created": 0, "owned_by": "qrag"}
MODEL: Example = {
    "name": "qrag-bge-small",
    "checkpoint": "configured",
    "fingerprint": "f44ef64dd223c9a759561494b3b71e32a071ce4bb0c9a9c6372b1fac4149abd4",
    "base_model": "BAAI/bge-small-en-v1.5",
    "dimension": 384,
    "device": "cpu",
    "storage": "directory",
    "positions": {"mode": "relative", "delta": 10.0, "ell": 9.0, "levels": 32, "rope_base": 10000.0, "dimension": 64},
    "stopping": {
        "rules": ["threshold", "action", "sufficiency"],
        "default_rule": "sufficiency",
        "step_cost": 0.05,
        "budget": 6,
    },
    "max_question_tokens": 256,
    "max_chunk_tokens": 318,
    "max_state_tokens": 512,
    "max_steps": 32,
    "max_beam_width": 16,
    "max_body_bytes": 134217728,
    "feedback": True,
    "keep_questions_days": 0,
    "training": {"recipe": {"name": "qrag-bge-small", "base": "bge-small"}, "seed": 1, "validation": {"mean": 0.864}},
}
GATE_IN: Example = {
    "questions": [
        {
            "id": "stove",
            "question": "Why did Franklin take no patent for his stove?",
            "expected": [
                {"text": "he offered to give me a patent for the sole vending of them for a term of years"},
                [{"text": "we enjoy great advantages"}, {"title": "Autobiography", "start": 275300, "end": 275500}],
            ],
        }
    ],
    "collection": "book",
    "max_loss": 0.01,
}
CHECKPOINT_IN: Example = {"checkpoint": "tuned-on-minutes", "gate": GATE_IN, "canary": 0.05}
CHECKPOINTS: Example = {
    "served": "configured",
    "available": ["configured", "tuned-on-minutes"],
    "change": {
        "checkpoint": "tuned-on-minutes",
        "state": "canary",
        "progress": None,
        "error": None,
        "canary": {"share": 0.05, "compared": 212, "dropped": 9, "failed": 0, "overlap": 0.81},
    },
    "gate": {
        "checkpoint": "tuned-on-minutes",
        "against": "configured",
        "passed": True,
        "finished_at": "2025-11-07T09:20:00.000Z",
        "questions": 120,
        "unresolved": 0,
        "max_steps": 6,
        "max_loss": 0.01,
        "served": {"share": 0.81, "recall": 0.73, "chunks": 3.9},
        "candidate": {"share": 0.84, "recall": 0.77, "chunks": 3.7},
        "difference": {"mean": 0.03, "low": -0.01, "high": 0.07},
        "wins": 9,
        "losses": 1,
        "won": ["stove", "lightning"],
        "lost": ["almanack"],
    },
    "vector_sets": 2,
}
EVENTS = 'event: step\ndata: {"step": 0, "q": 0.896, ...}\n\nevent: result\ndata: {"chunks": [...], ...}\n\n'
ANSWER_EVENTS = (
    'event: step\ndata: {"step": 0, "q": 0.896, ...}\n\nevent: retrieval\ndata: {"chunks": [...], ...}\n\n'
    'event: token\ndata: {"text": "Benjamin"}\n\nevent: result\ndata: {"answer": "Benjamin ...", ...}\n\n'
)
