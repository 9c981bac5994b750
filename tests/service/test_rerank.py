"""`rerank`: each step selects, of the chunks with the largest Q, the one that a cross-encoder prefers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from index.encoders.cross_encoder import LONGEST_QUESTION, CrossEncoder
from index.errors import CheckpointError
from service.services import open_services
from service.settings import Settings
from tests.servers import running_server
from tests.service.helpers import add, ask

TEXT = "\n".join(f"Line {number}: {word}." for number, word in enumerate("lamp box key door river lease".split() * 3))
QUESTION = "Where is the lamp?"


@pytest.fixture(scope="module")
def reranking(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, reranker: Path
) -> Iterator[httpx.Client]:
    with running_server(tmp_path_factory.mktemp("data"), tiny_checkpoint, reranker=str(reranker)) as client:
        add(client, TEXT, id="lines", collection="looked-at", chunking={"mode": "lines"})
        yield client


@pytest.mark.parametrize("count", [2, 5])
def test_each_step_selects_what_the_cross_encoder_prefers(reranking: httpx.Client, reranker: Path, count: int) -> None:
    found = ask(reranking, QUESTION, collection="looked-at", max_steps=3, rerank=count, trace=True, order="selection")
    texts = TEXT.split("\n")
    encoder = CrossEncoder(reranker, torch.device("cpu"))
    selected: list[int] = []
    for step in found["steps"]:
        contenders = [candidate["index"] for candidate in step["candidates"][:count]]
        evidence = [texts[index] for index in sorted(selected)]
        scores = encoder.score(QUESTION, [texts[index] for index in contenders], evidence)
        assert step["index"] == contenders[int(np.argmax(scores))]
        assert step["rerank_score"] == pytest.approx(float(scores.max()), abs=1e-4)
        selected.append(step["index"])
    assert len(set(selected)) == 3
    assert found["timings"]["rerank_ms"] > 0


def test_without_it_q_decides(reranking: httpx.Client) -> None:
    found = ask(reranking, QUESTION, collection="looked-at", max_steps=2, trace=True)
    assert all(step["index"] == step["candidates"][0]["index"] for step in found["steps"])
    assert {step["rerank_score"] for step in found["steps"]} == {None}
    assert found["timings"]["rerank_ms"] == 0


def test_what_cannot_be_is_refused(reranking: httpx.Client, limited_client: httpx.Client, collection: str) -> None:
    add(limited_client, TEXT, collection=collection)
    body = {"question": QUESTION, "collection": collection, "rerank": 5}
    answer = limited_client.post("/retrieve", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "cannot_rerank")
    assert "QRAG_RERANKER" in answer.json()["detail"]
    beam = reranking.post("/retrieve", json=body | {"collection": "looked-at", "beam_width": 2})
    assert (beam.status_code, beam.json()["code"]) == (422, "validation_error")
    assert "beam_width" in beam.text


def test_a_folder_without_a_cross_encoder_stops_the_start(tmp_path: Path, tiny_checkpoint: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, reranker=tmp_path)
    with pytest.raises(CheckpointError, match="reranker"):
        open_services(settings)


def test_a_long_question_is_cut_with_its_evidence(reranker: Path) -> None:
    encoder = CrossEncoder(reranker, torch.device("cpu"))
    evidence = ["lamp " * LONGEST_QUESTION, "never read"]
    assert encoder.score(QUESTION, ["box"], evidence) == encoder.score(QUESTION, ["box"], evidence[:1])
