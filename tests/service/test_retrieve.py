"""Retrieval over HTTP: the parts of an answer agree with each other and with the documents, and when it ends."""

from __future__ import annotations

import itertools

import httpx
import pytest

from index.encoders.encoder import Encoder
from qrag.wire.rules import Rule
from tests.index.stopping import CALIBRATION
from tests.service.helpers import add, ask, chunks_of
from tests.service.library import QUESTION, SENTENCES, add_library, add_lines

# --- One answer, its parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["document", "selection"])
def test_chunks_context_citations_and_steps_tell_the_same(
    client: httpx.Client, collection: str, encoder: Encoder, order: str
) -> None:
    add_library(client, collection)
    result = ask(client, QUESTION, collection=collection, max_steps=7, order=order)
    chunks, steps = result["chunks"], result["steps"]
    assert len(chunks) == len(steps) == 7
    assert (result["stopped_by"], result["model"]) == ("budget", encoder.config.name)
    assert [step["step"] for step in steps] == list(range(7))
    for chunk in chunks:
        document = client.get(f"/documents/{chunk['document_id']}").json()
        stored = chunks_of(client, chunk["document_id"])[chunk["index"]]
        assert {name: chunk[name] for name in ("start", "end", "text")} == {
            name: stored[name] for name in ("start", "end", "text")
        }
        assert (chunk["title"], chunk["metadata"]) == (document["title"], document["metadata"])
        step = steps[chunk["step"]]
        assert [step[name] for name in ("document_id", "index", "q")] == [
            chunk[name] for name in ("document_id", "index", "q")
        ]
        assert step["candidates"] is None
    if order == "selection":
        assert [chunk["step"] for chunk in chunks] == list(range(7))
    else:
        runs = [list(run) for _, run in itertools.groupby(chunks, key=lambda chunk: chunk["document_id"])]
        assert len({run[0]["document_id"] for run in runs}) == len(runs)
        assert all([c["index"] for c in run] == sorted({c["index"] for c in run}) for run in runs)
    blocks = [f"[{n}] {c['title'] or c['document_id']}\n{c['text']}" for n, c in enumerate(chunks, 1)]
    assert result["context"] == "\n\n".join(blocks)
    assert result["citations"] == [
        {"marker": f"[{n}]"} | {name: c[name] for name in ("document_id", "title", "index", "start", "end", "location")}
        for n, c in enumerate(chunks, 1)
    ]
    assert result["usage"] == {
        "question_tokens": len(encoder.question_tokens(QUESTION)),
        "context_tokens": encoder.chunk_tokenizer.count([result["context"]])[0],
        "candidates": 12,
        "exact": True,
        "truncated_tokens": 0,
    }
    assert result["one_step"] is None
    timings = result["timings"]
    assert min(timings.values()) >= 0
    assert timings["total_ms"] >= timings["queue_ms"] + timings["encode_ms"] + timings["search_ms"]


def test_both_orders_hold_the_same_chunks(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    found = [ask(client, QUESTION, collection=collection, order=order)["chunks"] for order in ("document", "selection")]
    assert sorted(found[0], key=lambda chunk: int(chunk["step"])) == found[1]


def test_answers_stay_the_same_while_others_index(client: httpx.Client, collection: str) -> None:
    """Every upload is a segment of vectors at first, and every eight of a size are merged behind the scenes."""
    for lines in (SENTENCES[:1], SENTENCES[1:11], SENTENCES[11:]):
        add_lines(client, collection, lines)
    first = ask(client, QUESTION, collection=collection, max_steps=12, trace=True)
    for number in range(20):
        add(client, f"Number {number}.", collection=f"{collection}-other")
        again = ask(client, QUESTION, collection=collection, max_steps=12, trace=True)
        assert {**again, "timings": None} == {**first, "timings": None}


def test_trace_shows_the_best_candidates_and_what_one_step_would_return(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    plain = ask(client, QUESTION, collection=collection, max_steps=5)
    result = ask(client, QUESTION, collection=collection, max_steps=5, trace=True)
    assert result["chunks"] == plain["chunks"]
    selected: set[tuple[str, int]] = set()
    for step in result["steps"]:
        candidates = step["candidates"]
        assert len(candidates) == min(10, 12 - step["step"])
        assert candidates[0] == {name: step[name] for name in ("document_id", "index", "q")}
        assert [each["q"] for each in candidates] == sorted((each["q"] for each in candidates), reverse=True)
        places = {(each["document_id"], each["index"]) for each in candidates}
        assert len(places) == len(candidates)
        assert not places & selected
        selected.add((step["document_id"], step["index"]))
    assert len(result["one_step"]) == 12


# --- When it ends --------------------------------------------------------------------------------------


def test_budget_and_exhaustion(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    for budget in (1, 11, 12):
        result = ask(client, QUESTION, collection=collection, max_steps=budget)
        assert (len(result["chunks"]), result["stopped_by"]) == (budget, "budget")
    assert len(ask(client, QUESTION, collection=collection)["chunks"]) == 6
    for beam_width in (1, 5):
        result = ask(client, QUESTION, collection=collection, max_steps=32, beam_width=beam_width)
        assert result["stopped_by"] == "exhausted"
        assert len({(chunk["document_id"], chunk["index"]) for chunk in result["chunks"]}) == 12


def test_threshold_ends_the_episode_before_a_chunk_below_it(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    values = [step["q"] for step in ask(client, QUESTION, collection=collection, max_steps=12)["steps"]]
    lowest = min(values)
    below = next(i for i, q in enumerate(values) if q <= lowest)
    for threshold, kept, reason in [(5.0, 0, "threshold"), (lowest + 0.001, below, "threshold"), (-5.0, 12, "budget")]:
        stop = {"rule": "threshold", "threshold": threshold}
        result = ask(client, QUESTION, collection=collection, max_steps=12, stop=stop)
        assert result["stopped_by"] == reason
        assert len(result["chunks"]) <= kept
        assert all(step["q"] >= threshold for step in result["steps"])
        if kept == 0:
            assert (result["context"], result["citations"], result["usage"]["context_tokens"]) == ("", [], 0)


@pytest.mark.parametrize("rule", ["threshold", "action", "sufficiency"])
def test_a_wish_stops_where_its_threshold_of_the_checkpoint_does(
    client: httpx.Client, collection: str, rule: Rule
) -> None:
    add_library(client, collection)

    def stopped(**stop: object) -> tuple[object, ...]:
        answer = ask(client, QUESTION, collection=collection, max_steps=12, stop=stop)
        return answer["chunks"], answer["stopped_by"], answer["sufficiency"]

    for wish in ({"step_cost": 0.2}, {"step_cost": 0.05}, {"target_recall": 0.9}, {"target_recall": 1.0}, {}):
        threshold = CALIBRATION.rule_for(rule, **wish).threshold
        assert stopped(rule=rule, **wish) == stopped(rule=rule, threshold=threshold)
    assert stopped(rule=rule) == stopped(rule="budget")  # as this checkpoint was calibrated
    assert stopped(rule=rule, threshold=9.0)[1] in (
        {rule, "sufficient", "hopeless"} if rule == "sufficiency" else {rule}
    )


def test_the_rule_need_not_be_named(client: httpx.Client, collection: str) -> None:
    assert client.get("/model").json()["stopping"] == {
        "rules": ["threshold", "action", "sufficiency"],
        "default_rule": "sufficiency",
        "step_cost": 0.02,
        "budget": 6,
    }
    add_library(client, collection)
    wishes: list[dict[str, object]] = [{"step_cost": 0.2}, {"rule": "sufficiency", "step_cost": 0.2}]
    wishes += [{}, {"rule": "sufficiency"}]
    answers = [ask(client, QUESTION, collection=collection, max_steps=12, stop=stop) for stop in wishes]
    answers.append(ask(client, QUESTION, collection=collection, max_steps=12))
    chosen = [[chunk["index"] for chunk in answer["chunks"]] for answer in answers]
    assert chosen[0] == chosen[1]
    assert chosen[2] == chosen[3] == chosen[4]


@pytest.mark.parametrize("beam_width", [1, 3])
@pytest.mark.parametrize("max_steps", [1, 5])
def test_every_answer_says_how_sufficient_it_is(
    client: httpx.Client, collection: str, beam_width: int, max_steps: int
) -> None:
    add_library(client, collection)
    answer = ask(client, QUESTION, collection=collection, max_steps=max_steps, beam_width=beam_width)
    told = [answer["sufficiency"], *(step["sufficiency"] for step in answer["steps"])]
    assert len(told) == max_steps + 1
    for one in told:
        assert set(one) == {"complete", "hopeless"}
        assert one["complete"] >= 0 <= one["hopeless"]
        assert one["complete"] + one["hopeless"] <= 1 + 1e-9
    assert len({one["complete"] for one in told}) == len(told)  # of other states
    nothing = {"field": "number", "equals": 9}
    nowhere = ask(client, QUESTION, collection=collection, filter=nothing, beam_width=beam_width)
    assert (nowhere["stopped_by"], nowhere["sufficiency"]) == ("exhausted", {"complete": 0.0, "hopeless": 1.0})


@pytest.mark.parametrize("beam_width", [1, 4])
def test_context_never_exceeds_its_limit(client: httpx.Client, collection: str, beam_width: int) -> None:
    add_library(client, collection)
    whole = ask(client, QUESTION, collection=collection, max_steps=12, beam_width=beam_width)["usage"]["context_tokens"]
    sizes = set()
    for limit in [1, *range(10, whole, 23), whole - 1, 10 * whole]:
        result = ask(
            client, QUESTION, collection=collection, max_steps=12, beam_width=beam_width, max_context_tokens=limit
        )
        assert result["usage"]["context_tokens"] <= limit
        assert result["stopped_by"] == ("context" if limit < whole else "budget")
        sizes.add(len(result["chunks"]))
    assert {0, 12} < sizes
    assert len(sizes) > 4


def test_what_the_state_tower_could_not_read_is_reported_and_not_cut_from_the_answer(
    client: httpx.Client, collection: str, encoder: Encoder
) -> None:
    texts = [f"{number} " + "words that fill the state " * 8 for number in range(20)]
    add_lines(client, collection, texts)
    short = ask(client, QUESTION, collection=collection, max_steps=2)
    assert short["usage"]["truncated_tokens"] == 0
    result = ask(client, QUESTION, collection=collection, max_steps=20)
    # These are 20 chunks of at least 41 tokens, of which the tower reads 256 in all.
    assert result["usage"]["truncated_tokens"] > 20 * 41 - 256
    everything = encoder.state_tokens([text.strip() for text in texts])
    expected = encoder.compose_state(encoder.question_tokens(QUESTION), everything).dropped
    assert result["usage"]["truncated_tokens"] == expected
    # Whatever else a beam has tried: it is about the chunks that are returned.
    beam = ask(client, QUESTION, collection=collection, max_steps=20, beam_width=3)
    assert beam["usage"]["truncated_tokens"] == result["usage"]["truncated_tokens"]
    assert sorted(chunk["text"] for chunk in result["chunks"]) == sorted(text.strip() for text in texts)
    assert all(text.strip() in result["context"] for text in texts)
