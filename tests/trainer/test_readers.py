"""Readers in this process: batches, padding and shorter prompts, against one request at a time in float64."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.trainer.causal_models import ARCHITECTURES, model, tokenizer
from trainer.bases.language_models import CarriedFile, take_out
from trainer.bases.wheels import Wheel
from trainer.errors import ReaderError, RecipeError
from trainer.readers.local import LocalReader, load_reader
from trainer.readers.protocol import Prompt, Request, generated, replied, scored
from trainer.readers.wording import PLAIN, Wording, instruction

CPU = torch.device("cpu")
TEXTS = st.text("the river ünd 山 town.", min_size=1, max_size=60).filter(str.strip)
REQUESTS = st.lists(
    st.builds(Request, st.builds(Prompt, TEXTS, st.lists(TEXTS, max_size=3).map(tuple)), TEXTS), min_size=1, max_size=7
)


def reader(architecture: str = "llama", *, chat: bool = False, **options: int) -> LocalReader:
    words = tokenizer(chat=chat)
    return LocalReader(model(architecture, len(words)), words, architecture, **options)


def log_probability(network: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Σ log P(token | all before it), from the logits of the whole text in float64."""
    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double()
    steps = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
    return sum(float(step[token]) for step, token in zip(steps, answer, strict=True))


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def small(request: pytest.FixtureRequest) -> LocalReader:
    return reader(request.param, batch_tokens=300)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS)
def test_a_batch_scores_as_one_request_at_a_time(small: LocalReader, requests: list[Request]) -> None:
    scores = scored(small, requests)
    words, network = tokenizer(), model(small.identity.split()[0], len(tokenizer()))
    for place, request in enumerate(requests):
        prompt = words(f"{instruction(request.prompt)}\nAnswer:")["input_ids"]
        answer = words(f" {request.answer.strip()}")["input_ids"]
        expected = log_probability(network, prompt, answer)
        assert scores.log_probability[place] == pytest.approx(expected, abs=1e-4 * max(1, len(answer) / 4))
        assert (scores.prompt_tokens[place], scores.answer_tokens[place]) == (len(prompt), len(answer))
        assert scores.contexts[place] == len(request.prompt.contexts)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_written_in_a_batch_is_the_most_probable_token_each_time(architecture: str) -> None:
    writer = reader(architecture)
    prompts = [Prompt("where?"), Prompt("where is the river?", ("in the north of the town. " * 4,)), Prompt("the old?")]
    words, network = tokenizer(), model(architecture, len(tokenizer()))
    for prompt, generation in zip(prompts, generated(writer, prompts, 6), strict=True):
        ids = words(f"{instruction(prompt)}\nAnswer:")["input_ids"]
        read = len(ids)
        with torch.inference_mode():
            while len(ids) < read + 6 and ids[-1] != words.eos_token_id:
                ids = [*ids, int(network(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        assert generation.text == str(words.decode(ids[read:], skip_special_tokens=True)).strip()
        assert (generation.prompt_tokens, generation.contexts) == (read, len(prompt.contexts))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS, answers=st.lists(TEXTS, max_size=3), chosen=st.data())
def test_a_reply_is_what_is_scored_and_what_is_written(
    small: LocalReader, requests: list[Request], answers: list[str], chosen: st.DataObject
) -> None:
    """Also where several requests, in any order, have the same prompt."""
    requests = [*requests, *(replace(requests[0], answer=answer) for answer in answers)]
    requests = chosen.draw(st.permutations(requests))
    scores, written = replied(small, requests, 4)
    alone = [scored(small, [request]) for request in requests]
    np.testing.assert_allclose(scores.log_probability, [one.log_probability[0] for one in alone], atol=2e-4)
    assert scores.prompt_tokens.tolist() == [int(one.prompt_tokens[0]) for one in alone]
    assert written == [generated(small, [request.prompt], 4)[0] for request in requests]


def test_a_model_s_own_settings_do_not_change_what_is_most_probable() -> None:
    """A penalty on repetition forbids copying an answer from a context."""
    words = tokenizer()
    plain, penalised = (model("llama", len(words)) for _ in range(2))
    penalised.generation_config.repetition_penalty = 8.0
    penalised.generation_config.no_repeat_ngram_size = 1
    prompt = Prompt("where is the river?", ("in the north of the old town " * 3,))
    both = [generated(LocalReader(network, words, "n"), [prompt], 12)[0].text for network in (plain, penalised)]
    assert both[0] == both[1]
    assert both[0]


def test_the_mean_is_that_of_a_token() -> None:
    scores = scored(reader(), [Request(Prompt("where?"), "the river in the north"), Request(Prompt("where?"), "a")])
    np.testing.assert_allclose(scores.mean * scores.answer_tokens, scores.log_probability)
    assert scores.log_probability.dtype == np.float64


def test_a_chat_template_is_what_stands_around_the_instruction() -> None:
    chatting = reader(chat=True)
    assert chatting.wording == Wording("<|user|>", "<|end|><|model|>\n")
    assert reader().wording == PLAIN
    words, network = tokenizer(), model("llama", len(tokenizer()))
    request = Request(Prompt("where?", ("the town",)), "north")
    text = f"<|user|>the town\n\n{instruction(Prompt('where?'))}<|end|><|model|>\n"
    expected = log_probability(network, words(text)["input_ids"], words("north")["input_ids"])
    assert scored(chatting, [request]).log_probability[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("texts", [("the  town is old",), ("the town is old", "it\nlies in the north")])
def test_what_asks_for_a_question_ends_where_the_question_begins(texts: tuple[str, ...]) -> None:
    prompt = Prompt(None, texts, "old")
    shown = "".join(f"Text: {' '.join(text.split())}\n" for text in texts)
    assert PLAIN.prompt(prompt).endswith(f"\n\n{shown}Answer: old\nQuestion:")
    chat = Wording("<|user|>", "<|end|><|model|>\n")
    assert chat.prompt(prompt).endswith(f"\n\n{shown}Answer: old<|end|><|model|>\nQuestion:")
    examples = instruction(prompt).split("\n\n")[:-1]
    assert examples
    assert all(example.count("Text: ") == len(texts) and "\nQuestion: " in example for example in examples)


# -- too long ---------------------------------------------------------------------------------------------------------


def test_the_last_contexts_of_a_prompt_that_is_too_long_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    contexts = tuple(f"the {number}. town is in the north of the river" for number in range(6))
    whole = Request(Prompt("where is the town?", contexts), "north")
    tokens = int(scored(reader(), [whole]).prompt_tokens[0])
    with caplog.at_level(logging.WARNING):
        scores = scored(narrow := reader(most_tokens=tokens - 1), [whole, replace(whole, prompt=Prompt("where?"))])
    assert "cut prompts=1 of 2" in caplog.text
    kept = int(scores.contexts[0])
    assert kept == 5  # one less is enough
    shorter = replace(whole, prompt=replace(whole.prompt, contexts=contexts[:kept]))
    assert scored(narrow, [shorter]).log_probability[0] == pytest.approx(scores.log_probability[0], abs=1e-5)
    assert generated(narrow, [whole.prompt], 1)[0].contexts == 5
    # What is written needs room of its own, the score is that of the prompt that leaves just enough for the answer.
    enough = reader(most_tokens=tokens + int(scores.answer_tokens[0]))
    both, written = replied(enough, [whole], 40)
    assert (both.contexts[0], both.prompt_tokens[0]) == (6, tokens)
    assert written[0].contexts < 6
    assert both.log_probability[0] == pytest.approx(scored(enough, [whole]).log_probability[0], abs=1e-5)


def test_a_context_that_is_too_long_by_itself_is_read_as_far_as_its_words_go() -> None:
    long = Request(Prompt("where is the town?", ("the town is in the north of the river, " * 30, "the end")), "north")
    bare = int(scored(reader(), [replace(long, prompt=Prompt("where is the town?"))]).prompt_tokens[0])
    scores = scored(reader(most_tokens=bare + 200), [long])
    assert scores.contexts[0] == 0  # none is whole
    assert bare + 100 < scores.prompt_tokens[0] <= bare + 200


def test_a_question_that_is_too_long_by_itself_is_refused() -> None:
    with pytest.raises(ReaderError, match="longer than the 20 tokens"):
        scored(reader(most_tokens=20), [Request(Prompt("where is the town? " * 9), "north")])


def test_an_empty_answer_is_refused() -> None:
    with pytest.raises(ReaderError, match="empty answer"):
        scored(reader(), [Request(Prompt("where?"), " ")])


def test_logits_that_are_no_numbers_are_refused() -> None:
    words = tokenizer()
    broken: Any = model("llama", len(words))
    with torch.no_grad():
        broken.get_output_embeddings().weight.fill_(torch.inf)
    with pytest.raises(ReaderError, match="float32"):
        scored(LocalReader(broken, words, "broken"), [Request(Prompt("where?"), "north")])


# -- loading ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("causal")
    words = tokenizer(chat=True)
    words.save_pretrained(path)
    model("llama", len(words)).save_pretrained(path)
    return path


def test_a_folder_is_read_as_it_was_written(folder: Path) -> None:
    request = Request(Prompt("where?", ("in the north",)), "north")
    loaded = load_reader(folder, CPU, torch.float32)
    assert scored(loaded, [request]).log_probability == pytest.approx(
        scored(reader(chat=True), [request]).log_probability
    )
    assert loaded.identity != load_reader(folder, CPU, torch.bfloat16).identity


def test_other_weights_are_another_reader(folder: Path, tmp_path: Path) -> None:
    words = tokenizer(chat=True)
    words.save_pretrained(tmp_path / folder.name)
    other: Any = model("llama", len(words))
    with torch.no_grad():
        other.get_output_embeddings().weight.add_(1e-3)
    other.save_pretrained(tmp_path / folder.name)
    assert load_reader(tmp_path / folder.name, CPU).identity != load_reader(folder, CPU).identity


@pytest.mark.parametrize("name", ["nothing", "nothing.gguf"])
def test_what_is_no_model_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReaderError, match="is no language model"):
        load_reader(tmp_path / name, CPU)


def test_a_model_that_is_not_causal_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((tiny_base / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ReaderError, match="no causal language model"):
        load_reader(tmp_path, CPU)


def test_a_gguf_file_without_the_packages_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ReaderError, match=r"pip install '\.\[reader\]'"):
        load_reader(tmp_path / "a.gguf", CPU)


# -- the file in the wheel --------------------------------------------------------------------------------------------


@pytest.fixture
def carrier(tmp_path: Path) -> tuple[CarriedFile, Path]:
    with zipfile.ZipFile(tmp_path / "carrier.whl", "w") as archive:
        archive.writestr("package/__init__.py", "raise RuntimeError('never imported')")
        archive.writestr("package/weights.gguf", b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    return CarriedFile(Wheel("carrier==1", "0" * 64), "package/weights.gguf", sha256), tmp_path / "carrier.whl"


def test_a_file_is_taken_out_of_its_wheel_once(tmp_path: Path, carrier: tuple[CarriedFile, Path]) -> None:
    file, wheel = carrier
    path = take_out(file, tmp_path / "models", wheel)
    assert (path, path.read_bytes()) == (tmp_path / "models" / "weights.gguf", b"weights")
    wheel.unlink()
    assert take_out(file, tmp_path / "models", wheel) == path
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["weights.gguf"]


def test_a_file_that_was_damaged_is_taken_out_again(tmp_path: Path, carrier: tuple[CarriedFile, Path]) -> None:
    file, wheel = carrier
    (tmp_path / file.name).write_bytes(b"weigh")
    assert take_out(file, tmp_path, wheel).read_bytes() == b"weights"


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path, carrier: tuple[CarriedFile, Path]) -> None:
    file, wheel = carrier
    with pytest.raises(RecipeError, match="checksum"):
        take_out(replace(file, sha256="1" * 64), tmp_path / "models", wheel)
    with pytest.raises(RecipeError, match="holds no package/other"):
        take_out(replace(file, path="package/other"), tmp_path / "models", wheel)
    assert not list((tmp_path / "models").iterdir())
