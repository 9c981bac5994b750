"""Towers mean the same to sentence-transformers: written and projected ones, the packaged one, the default ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedModel

from index.encoders.checkpoint import CheckpointConfig, Pooling, read_config, weights_sha256
from index.encoders.loading import load_encoder
from index.encoders.tokenizer import TextTokenizer
from index.encoders.tower import Tower
from index.encoders.writing import write_config, write_tower
from index.errors import CheckpointError
from tests.index.checkpoints import (
    DEFAULT,
    PACKAGED_CONFIG,
    TEXTS,
    flip_last_bit,
    projected,
    random_projection,
    theirs,
)
from tests.random_checkpoints import BASE_MODEL, write_random_checkpoint


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_written_tower_means_the_same_to_sentence_transformers(
    tmp_path: Path, pooling: Pooling, normalize: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    torch.manual_seed(1)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
        )
    )
    tower = write_tower(tmp_path, "action", model, tokenizer, pooling=pooling, normalize=normalize, max_tokens=100)
    assert tower.sha256 == weights_sha256(tmp_path / "action")
    assert {path.suffix for path in (tmp_path / "action").iterdir() if path.is_file()} == {".json", ".safetensors"}
    write_config(
        tmp_path,
        CheckpointConfig(
            name="test",
            base_model="random",
            dimension=32,
            state=tower,
            action=tower,
            pooling=pooling,
            normalize=normalize,
            separator="[SEP]",
            state_tokens=100,
            action_tokens=100,
        ),
    )
    reference = SentenceTransformer(str(tmp_path / "action"), device="cpu", local_files_only=True)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    ours = encoder.embed_actions(encoder.action_inputs(TEXTS))
    assert reference.max_seq_length == 100
    np.testing.assert_allclose(ours, reference.encode(TEXTS), atol=1e-5)
    norms = np.linalg.norm(ours, axis=1)
    assert np.allclose(norms, 1, atol=1e-5) == normalize


def write_projected(
    checkpoint: Path, projection: torch.nn.Linear, pooling: Pooling = "mean", normalize: bool = True
) -> PreTrainedModel:
    """A random checkpoint whose action tower, ``projected``, ends in a projection; the model before it."""
    write_random_checkpoint(checkpoint)
    model: PreTrainedModel = AutoModel.from_pretrained(checkpoint / "action")
    tower = write_tower(
        checkpoint,
        "projected",
        model,
        AutoTokenizer.from_pretrained(BASE_MODEL),
        pooling=pooling,
        normalize=normalize,
        max_tokens=256,
        projection=projection,
    )
    changes = {"action": tower, "pooling": pooling, "normalize": normalize}
    write_config(checkpoint, read_config(checkpoint).model_copy(update=changes))
    return model


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False)])
def test_a_projection_means_the_same_to_sentence_transformers(
    tmp_path: Path, pooling: Pooling, normalize: bool
) -> None:
    projection = random_projection(32)
    model = write_projected(tmp_path, projection, pooling, normalize)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    ours = encoder.embed_actions(encoder.action_inputs(TEXTS))
    np.testing.assert_allclose(ours, theirs(tmp_path / "projected", TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    bare = Tower(model, TextTokenizer(tmp_path / "projected"), pooling=pooling, normalize=normalize)
    unprojected = bare.embed(encoder.action_inputs(TEXTS))
    np.testing.assert_allclose(ours, projected(unprojected, projection), atol=1e-5)
    assert not np.allclose(ours, unprojected, atol=0.1)
    assert encoder.state_tower.projection is None


def test_a_projection_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    write_projected(tmp_path, random_projection(32))
    load_encoder(tmp_path, device="cpu")
    (dense,) = (tmp_path / "projected").glob("*_Dense/*.safetensors")
    flip_last_bit(dense)
    with pytest.raises(CheckpointError, match=r"projected do not have the recorded checksum"):
        load_encoder(tmp_path, device="cpu")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (None, 0.02)])
def test_the_packaged_base_model_is_all_minilm_l6_v2(
    tmp_path: Path, dtype: torch.dtype | None, tolerance: float
) -> None:
    write_config(tmp_path, PACKAGED_CONFIG)
    encoder = load_encoder(tmp_path, device="cpu", dtype=dtype)
    actions = encoder.embed_actions(encoder.action_inputs(TEXTS))
    states = encoder.embed_states(
        [encoder.compose_state(encoder.question_tokens(text), []) for text in TEXTS]
    ).embeddings
    np.testing.assert_allclose(actions, theirs(BASE_MODEL, TEXTS), atol=tolerance)
    np.testing.assert_array_equal(states, actions)


def test_the_default_checkpoint_loads_and_its_towers_elsewhere_too(tmp_path: Path) -> None:
    encoder = load_encoder(DEFAULT, device="cpu", dtype=torch.float32)
    config = encoder.config
    assert config == read_config(DEFAULT)
    # Its towers are packed, with a vocabulary they share: written whole, others load them.
    for name, tower in (("state", encoder.state_tower), ("action", encoder.action_tower)):
        assert isinstance(tower.model, PreTrainedModel)
        write_tower(
            tmp_path,
            name,
            tower.model,
            AutoTokenizer.from_pretrained(DEFAULT / "action"),
            pooling=config.pooling,
            normalize=config.normalize,
            max_tokens=config.action_tokens,
            projection=tower.projection,
        )
    actions = encoder.embed_actions(encoder.action_inputs(TEXTS))
    prefixed = [config.action_prefix + text for text in TEXTS]
    np.testing.assert_allclose(actions, theirs(tmp_path / "action", prefixed), atol=1e-5)
    states = encoder.embed_states(
        [encoder.compose_state(encoder.question_tokens(text), []) for text in TEXTS]
    ).embeddings
    prefixed = [config.state_prefix + text for text in TEXTS]
    questions = theirs(tmp_path / "action", prefixed)
    expected = theirs(tmp_path / "state", prefixed) + config.question_share * questions
    np.testing.assert_allclose(states, expected, atol=1e-5)


def test_the_default_checkpoint_is_at_most_64_mb() -> None:
    sizes = [path.stat().st_size for path in DEFAULT.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 64_000_000
    assert max(sizes) <= 48_000_000


def test_both_towers_of_a_random_checkpoint_load(tmp_path: Path) -> None:
    config = write_random_checkpoint(tmp_path, dimension=16, seed=7)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    assert encoder.config == config
    (action,) = encoder.embed_actions(encoder.action_inputs(["a ball"]))
    (state,) = encoder.embed_states([encoder.compose_state(encoder.question_tokens("a ball"), [])]).embeddings
    np.testing.assert_allclose(action, theirs(tmp_path / "action", ["a ball"])[0], atol=1e-5)
    np.testing.assert_allclose(state, theirs(tmp_path / "state", ["a ball"])[0], atol=1e-5)
    assert not np.allclose(action, state, atol=1e-3)
