"""Texts to tokens to embeddings: states within their limit, batches that change nothing, any architecture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from index.encoders.checkpoint import CheckpointConfig, read_config
from index.encoders.encoder import HEADING_TOKENS, Encoder
from index.encoders.loading import load_encoder, load_model, resolve_device
from index.encoders.packing import is_packed
from index.encoders.tokenizer import TextTokenizer
from index.encoders.tower import Tower, token_batches
from index.encoders.writing import write_config, write_tower
from index.errors import CheckpointError
from tests.architectures import ARCHITECTURES

CLS, SEP = 101, 102

TEXTS = ["Ann took the red ball.", "Where?", "", "so many words " * 30, "天地玄黄 😀", "Ann took the red ball."]


@pytest.fixture(scope="module")
def tower(tiny_checkpoint: Path) -> Tower:
    model = load_model(tiny_checkpoint / "action", torch.device("cpu"), torch.float32)
    return Tower(model, TextTokenizer(tiny_checkpoint / "action"), pooling="mean", normalize=True)


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path, tower: Tower) -> Encoder:
    return Encoder(read_config(tiny_checkpoint), tower, tower)


@pytest.fixture(scope="module")
def tokenizer(tower: Tower) -> TextTokenizer:
    return tower.tokenizer


# -- tokens -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.text()))
def test_counts_ids_and_ends_of_tokens_agree(tokenizer: TextTokenizer, texts: list[str]) -> None:
    ids = tokenizer.tokenize(texts)
    assert tokenizer.count(texts) == [len(each) for each in ids]
    for text, each in zip(texts, ids, strict=True):
        ends = tokenizer.token_ends(text)
        assert len(ends) == len(each)
        assert ends == sorted(ends)
        assert all(0 < end <= len(text) for end in ends)


def test_special_tokens_stand_around_an_input_and_never_come_from_its_text(tokenizer: TextTokenizer) -> None:
    assert (tokenizer.before, tokenizer.after, tokenizer.padding) == ([CLS], [SEP], 0)
    (ids,) = tokenizer.tokenize(["[CLS] this [SEP] that [PAD] [MASK]"])
    assert not {CLS, SEP, 0, 103} & set(ids)
    (bracket,) = tokenizer.tokenize(["["])[0]
    assert ids.count(bracket) == 4


def test_long_texts_are_not_truncated_by_the_tokenizers_own_settings(tokenizer: TextTokenizer) -> None:
    assert tokenizer.count(["ball " * 3000, "ball"]) == [3000, 1]


def test_a_separator_is_a_special_token_or_a_text(tokenizer: TextTokenizer) -> None:
    assert tokenizer.separator("[SEP]") == [SEP]
    assert tokenizer.separator("and then") == tokenizer.tokenize(["and then"])[0]
    assert len(tokenizer.separator("and then")) == 2


# -- states -----------------------------------------------------------------------------------------------------------


def test_a_state_is_the_question_and_the_chunks_in_the_given_order(encoder: Encoder) -> None:
    state = encoder.compose_state([7, 8], [[11, 12, 13], [21]])
    assert state.ids == [CLS, 7, 8, SEP, 11, 12, 13, SEP, 21, SEP]
    assert state.dropped == 0
    assert encoder.compose_state([7, 8], []).ids == [CLS, 7, 8, SEP]


def test_the_longest_chunks_are_shortened_first(tiny_checkpoint: Path, tower: Tower) -> None:
    config = read_config(tiny_checkpoint).model_copy(update={"state_tokens": 30})
    # Five for the question and five special tokens leave 20 for 4 + 30 + 9.
    state = Encoder(config, tower, tower).compose_state([7] * 5, [[1] * 4, [2] * 30, [3] * 9])
    assert [state.ids.count(chunk) for chunk in (1, 2, 3)] == [4, 8, 8]
    assert state.dropped == 22 + 1
    assert len(state.ids) == 30


@st.composite
def states(draw: st.DrawFn) -> tuple[int, list[int], list[list[int]], str]:
    """A limit, a question that keeps to its own limit, chunks, a separator."""
    limit = draw(st.integers(10, 90))
    question = draw(st.lists(st.integers(1000, 1999), max_size=limit // 2 - 2))
    lengths = draw(st.lists(st.one_of(st.integers(1, 8), st.integers(1, 120)), max_size=8))
    chunks = [[2000 + 1000 * number + i for i in range(length)] for number, length in enumerate(lengths)]
    return limit, question, chunks, draw(st.sampled_from(["[SEP]", "and then", ""]))


@settings(deadline=None, max_examples=300)
@given(states())
def test_states_keep_to_the_limit_and_lose_no_more_than_they_must(
    tiny_checkpoint: Path, tower: Tower, drawn: tuple[int, list[int], list[list[int]], str]
) -> None:
    limit, question, chunks, separator = drawn
    config = read_config(tiny_checkpoint).model_copy(update={"state_tokens": limit, "separator": separator})
    between = tower.tokenizer.separator(separator)
    room = limit - 2 - len(question) - len(chunks) * len(between)
    longest = max((len(chunk) for chunk in chunks), default=0)
    cap = max(c for c in range(longest + 1) if c == 0 or sum(min(len(chunk), c) for chunk in chunks) <= room)
    body = [token for chunk in chunks if cap for token in [*between, *chunk[:cap]]]
    state = Encoder(config, tower, tower).compose_state(question, chunks)
    assert state.ids == [CLS, *question, *body, SEP]
    assert len(state.ids) <= limit
    assert state.dropped == sum(max(len(chunk) - cap, 0) for chunk in chunks)


def test_a_separator_in_the_users_text_separates_nothing(encoder: Encoder) -> None:
    question = encoder.question_tokens("Who [SEP] what?")
    (chunk,) = encoder.state_tokens(["Ann [SEP] Bob"])
    state = encoder.compose_state(question, [chunk])
    assert [at for at, token in enumerate(state.ids) if token == SEP] == [1 + len(question), len(state.ids) - 1]
    (action,) = encoder.action_inputs(["Ann [SEP] Bob"])
    assert action.count(SEP) == 1


def test_limits_leave_room_for_what_stands_around(encoder: Encoder) -> None:
    assert encoder.question_limit == 128
    assert encoder.chunk_limit == 254
    (action,) = encoder.action_inputs(["ball " * encoder.chunk_limit])
    assert len(action) == encoder.config.action_tokens


def test_prefixes_stand_before_questions_and_chunks_and_are_counted(encoder: Encoder, tower: Tower) -> None:
    prefixes = {"state_prefix": "query: ", "action_prefix": "passage: "}
    prefixed = Encoder(encoder.config.model_copy(update=prefixes), tower, tower)
    tokenize = encoder.chunk_tokenizer.tokenize
    assert prefixed.question_tokens("a ball") == tokenize(["query: a ball"])[0]
    assert prefixed.action_inputs(["a ball"]) == [[CLS, *tokenize(["passage: a ball"])[0], SEP]]
    assert prefixed.state_tokens(["a ball"]) == tokenize(["a ball"])
    assert prefixed.chunk_limit == encoder.chunk_limit - 2


# -- batches ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_batches_hold_every_input_once_and_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * max(lengths[i] for i in batch) <= budget or len(batch) == 1


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_batches_without_padding_hold_what_their_tokens_have_room_for(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(lengths, budget, padded=False))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch, following in pairwise(batches):
        tokens = sum(lengths[i] for i in batch)
        assert tokens <= budget or len(batch) == 1
        assert tokens + lengths[following[0]] > budget


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_batches_are_full_and_little_is_padded(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(lengths, budget))
    in_order = [lengths[i] for batch in batches for i in batch]
    assert in_order == sorted(lengths, reverse=True)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > budget


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_what_shares_a_batch_changes_no_embedding(
    tower: Tower, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [[CLS, *ids, SEP] for ids in tower.tokenizer.tokenize(TEXTS)]
    alone = np.concatenate([tower.embed([ids]) for ids in inputs])
    monkeypatch.setattr(tower, "batch_tokens", batch_tokens)
    together = tower.embed(inputs)
    assert together.dtype == np.float32
    assert together.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(tower.embed(inputs[::-1]), alone[::-1], atol=1e-6)
    assert not np.allclose(alone[0], alone[1], atol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_packed_and_padded_batches_mean_the_same(tiny_checkpoint: Path, pooling: str) -> None:
    tokenizer = TextTokenizer(tiny_checkpoint / "action")
    inputs = [[CLS, *ids, SEP] for ids in tokenizer.tokenize(TEXTS)]
    packed, padded = (
        Tower(
            load_model(tiny_checkpoint / "action", torch.device("cpu"), torch.float32),
            tokenizer,
            pooling=pooling,
            normalize=True,
        )
        for _ in range(2)
    )
    padded.model.set_attn_implementation("sdpa")
    assert (is_packed(packed.model), is_packed(padded.model)) == (True, False)
    np.testing.assert_allclose(packed.embed(inputs), padded.embed(inputs), atol=1e-6)


def test_the_largest_batches_are_as_large_as_any(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    forward = encoder.state_tower.forward

    def noted(inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        seen.append([len(ids) for ids in inputs])
        return forward(inputs)

    monkeypatch.setattr(encoder.state_tower, "forward", noted)
    monkeypatch.setattr(encoder.state_tower, "batch_tokens", 1024)
    encoder.run_largest_batches()
    assert seen == [[256] * 4] * 2


def test_embedding_twice_gives_the_same(tiny_checkpoint: Path) -> None:
    encoder = load_encoder(tiny_checkpoint, device="cpu")
    inputs = encoder.action_inputs(TEXTS)
    np.testing.assert_array_equal(encoder.embed_actions(inputs), encoder.embed_actions(inputs))


# -- pooling and architectures ----------------------------------------------------------------------------------------


def write_checkpoint(directory: Path, architecture: str, *, normalize: bool) -> PreTrainedModel:
    model, tokenizer = ARCHITECTURES[architecture].make()
    pooling = ARCHITECTURES[architecture].pooling
    tower = write_tower(directory, "both", model, tokenizer, pooling=pooling, normalize=normalize, max_tokens=120)
    config = CheckpointConfig(
        name=architecture,
        base_model="random",
        dimension=32,
        state=tower,
        action=tower,
        pooling=pooling,
        normalize=normalize,
        separator="\n",
        action_prefix="passage: ",
        state_tokens=120,
        action_tokens=120,
    )
    write_config(directory, config)
    return model


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pooling_is_what_it_says_for_each_architecture(tmp_path: Path, architecture: str, normalize: bool) -> None:
    model = write_checkpoint(tmp_path, architecture, normalize=normalize)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    inputs = encoder.action_inputs(["the ball", "the ball is red. the red ball is the ball", "ä 😀"])
    embeddings = encoder.embed_actions(inputs)
    for ids, embedding in zip(inputs, embeddings, strict=True):
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        expected = {"cls": hidden[0], "last": hidden[-1], "mean": hidden.mean(axis=0)}[encoder.config.pooling]
        if normalize:
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_last_token_pooling_is_what_left_padding_gives(tmp_path: Path) -> None:
    # Qwen3-Embedding documents left padding and the last column.
    model = write_checkpoint(tmp_path, "qwen3-last", normalize=True)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    inputs = encoder.action_inputs(["the ball", "the ball is red. the red ball is the ball"])
    width = max(map(len, inputs))
    ids = torch.tensor([[0] * (width - len(each)) + each for each in inputs])
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in inputs])
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, -1]
    expected = torch.nn.functional.normalize(hidden, dim=1).numpy()
    np.testing.assert_allclose(encoder.embed_actions(inputs), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "before", "after"),
    [("bert-mean", [CLS], [SEP]), ("xlm-roberta-mean", [0], [2]), ("qwen3-last", [], [0])],
)
def test_each_architecture_has_its_special_tokens(
    tmp_path: Path, architecture: str, before: list[int], after: list[int]
) -> None:
    write_checkpoint(tmp_path, architecture, normalize=True)
    encoder = load_encoder(tmp_path, device="cpu")
    state = encoder.compose_state([50, 51], [])
    assert state.ids == [*before, 50, 51, *after]
    text = "the ball is red. " * 40
    (end,) = encoder.chunk_tokenizer.token_ends(text)[encoder.chunk_limit - 1 : encoder.chunk_limit]
    (action,) = encoder.action_inputs([text[:end]])
    assert action[: len(before)] == before
    assert action[-1:] == after
    assert encoder.config.action_tokens - 1 <= len(action) <= encoder.config.action_tokens


# -- what cannot be loaded --------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint to do harm to."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def test_a_dimension_that_is_not_the_models_is_refused(checkpoint: Path) -> None:
    write_config(checkpoint, read_config(checkpoint).model_copy(update={"dimension": 64}))
    with pytest.raises(CheckpointError, match="claims dimension 64, but state has 32"):
        load_encoder(checkpoint, device="cpu")


def test_a_tower_without_its_tokenizer_is_refused(checkpoint: Path) -> None:
    (checkpoint / "action" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"action has no tokenizer\.json"):
        load_encoder(checkpoint, device="cpu")


def test_a_tokenizer_cut_short_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "action" / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load the tokenizer"):
        load_encoder(checkpoint, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, r"lack 16 parameters of its config\.json"),
        ({"intermediate_size": 48}, "transformers cannot load"),
        ({"model_type": "no-such-model"}, "transformers cannot load"),
    ],
)
def test_a_model_that_its_weights_do_not_fit_is_refused(
    checkpoint: Path, changes: dict[str, object], message: str
) -> None:
    path = checkpoint / "state" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        load_encoder(checkpoint, device="cpu")


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(CheckpointError, match="QRAG_DEVICE"):
        resolve_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:one"])
def test_a_device_of_another_name_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="Set auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_a_chunk_is_read_below_its_heading_where_the_checkpoint_was_trained_so(tiny_checkpoint: Path) -> None:
    plain = load_encoder(tiny_checkpoint, device="cpu")
    headed = Encoder(plain.config.model_copy(update={"headings": True}), plain.state_tower, plain.action_tower)
    assert plain.chunk_text("Bees", "They hum.") == "They hum."
    assert headed.chunk_text("Bees", "They hum.") == "Bees\nThey hum."
    assert headed.chunk_text("", "They hum.") == "They hum."
    assert headed.chunk_limit == plain.chunk_limit - HEADING_TOKENS
    cut, _ = headed.chunk_text("a " * 100, "They hum.").split("\n")
    assert headed.chunk_tokenizer.count([cut]) == [HEADING_TOKENS]
    assert headed.config.action_fingerprint != plain.config.action_fingerprint


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_towers_compute_in_what_is_asked_for(tiny_checkpoint: Path, dtype: torch.dtype) -> None:
    encoder = load_encoder(tiny_checkpoint, device="cpu", dtype=dtype)
    assert encoder.dtype == dtype
    found = encoder.embed_actions(encoder.cut_action_inputs(TEXTS))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("native", "faster", "dtype"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_a_processor_computes_in_bfloat16_where_it_has_it_and_is_faster_at_it(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, native: bool, faster: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("index.encoders.loading._bfloat16_is_faster", lambda: faster)
    assert load_encoder(tiny_checkpoint, device="cpu").dtype == dtype
