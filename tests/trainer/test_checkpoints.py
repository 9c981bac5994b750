"""From a base model to a checkpoint that serves the same, and from there to whole towers that others load."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from index.encoders.checkpoint import DirectoryTower, PackageTower, PatchedTower, read_config, tower_directory
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.encoders.writing import write_stopping
from index.episodes.stopping import UNTAUGHT
from index.search.positions import Positions
from tests.random_checkpoints import BASE_MODEL, write_random_checkpoint
from tests.trainer.learners import CPU, make_learner, make_recipe, random_questions
from trainer.bases.models import MINILM, PACKAGED, base_directory, initial_config, start_directory
from trainer.errors import RecipeError
from trainer.hyperparameters import ActionMode, Hyperparameters
from trainer.learning.checkpoints import export, pack, write_checkpoint
from trainer.learning.learner import Learner
from trainer.learning.networks import QNetwork
from trainer.learning.training import build_learner
from trainer.recipe import Recipe

TEXTS = ["Ann took the red ball.", "Where is the ball?", "", "a long text: " + "so many words " * 10]

Array = NDArray[np.float32]


# -- where training starts --------------------------------------------------------------------------------------------


def test_the_base_model_is_the_packaged_one_or_a_folder(tiny_base: Path) -> None:
    assert base_directory(MINILM) == BASE_MODEL
    assert base_directory(str(tiny_base)) == tiny_base


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "tokenizer.json", None])
def test_a_folder_without_a_model_is_refused(tiny_base: Path, tmp_path: Path, lacking: str | None) -> None:
    folder = tmp_path / "base"
    if lacking is not None:
        shutil.copytree(tiny_base, folder)
        (folder / lacking).unlink()
    with pytest.raises(RecipeError, match=rf"base: {folder} holds no model .*Give the folder .*or minilm\."):
        base_directory(str(folder))


def test_training_starts_from_the_base_model_in_both_roles(tiny_base: Path) -> None:
    positions = Positions(mode="relative", delta=20, ell=18, levels=7)
    fields: dict[str, Any] = {
        "name": "some-name",
        "pooling": "cls",
        "normalize": False,
        "separator": "|",
        "state_prefix": "q: ",
        "action_prefix": "p: ",
        "state_tokens": 77,
        "action_tokens": 55,
        "positions": positions,
    }
    config = initial_config(make_recipe(tiny_base, **fields), tiny_base)
    assert {name: getattr(config, name) for name in fields} == fields
    assert (config.w, config.b, config.dimension, config.stopping) == (1, 0, 32, None)
    assert config.state == config.action
    packaged = initial_config(make_recipe(Path(MINILM)), BASE_MODEL)
    assert packaged.dimension == 384
    assert packaged.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert tower_directory(BASE_MODEL, packaged.action) == BASE_MODEL


@pytest.mark.parametrize("name", ["state_tokens", "action_tokens"])
def test_more_tokens_than_the_model_reads_are_refused(name: str) -> None:
    initial_config(make_recipe(Path(MINILM), **{name: 512}), BASE_MODEL)
    with pytest.raises(RecipeError, match=f"{name}: minilm reads at most 512 tokens"):
        initial_config(make_recipe(Path(MINILM), **{name: 513}), BASE_MODEL)


def test_a_model_of_unknown_size_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    content = json.loads((folder / "config.json").read_text())
    del content["hidden_size"]
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(RecipeError, match=r"names no hidden_size in its config\.json"):
        initial_config(make_recipe(folder), folder)


@pytest.mark.parametrize("mode", ["frozen", "adapter", "refreshed"])
@pytest.mark.parametrize("base", [MINILM, "folder"])
def test_training_goes_on_from_a_checkpoint(tiny_base: Path, tmp_path: Path, base: str, mode: ActionMode) -> None:
    recipe, learner = trained(Path(MINILM) if base == MINILM else tiny_base, mode)
    write_checkpoint(tmp_path / "first", recipe, learner, {"mean": 0.5})
    goes_on = recipe.model_copy(update={"start": str(tmp_path / "first"), "seed": 1})
    again = build_learner(goes_on, CPU, seed=1)
    stored = load_encoder(tmp_path / "first", device="cpu", dtype=again.network.state.dtype)
    for found, expected in zip(in_memory(again), served(stored), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    target = again.target.state_dict()
    assert all(torch.equal(value, target[name]) for name, value in again.network.state_dict().items())
    assert again.function == stored.function
    write_checkpoint(tmp_path / "second", goes_on, again, {})
    config = read_config(tmp_path / "second")
    assert config.training is not None
    assert config.training["start"] == read_config(tmp_path / "first").training
    same = load_encoder(tmp_path / "second", device="cpu", dtype=again.network.state.dtype)
    for found, expected in zip(served(same), served(stored), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_packaged_checkpoint_can_be_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `examples/training/own.yaml` does: with the same positions and heads, and no base."""
    monkeypatch.setenv("QRAG_MODELS", str(tmp_path))
    config = read_config(start_directory(PACKAGED))
    shared = ("pooling", "positions", "state_tokens", "action_tokens", "headings")
    fields = {name: getattr(config, name) for name in shared} | {"lexical": True, "surroundings": True}
    recipe = make_recipe(Path(PACKAGED), start=PACKAGED, **fields).model_copy(update={"base": None})
    learner = build_learner(recipe, CPU, seed=0)
    packaged = load_encoder(start_directory(PACKAGED), device="cpu", dtype=learner.network.state.dtype)
    assert (learner.function.w, learner.function.b) == (config.w, config.b)
    for found, expected in zip(served(learner.network.serving(learner.function)), served(packaged), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": Positions(levels=9)}, r"start: .*positions .*levels=8.*levels=9.*Use the same\."),
        ({"pooling": "cls"}, r"start: .* has pooling mean, the recipe cls\. Use the same\."),
        ({"hyperparameters": Hyperparameters(action_mode="frozen")}, r"start: .* has an adapter\. Set action_mode"),
        ({"base": MINILM}, r"start: .* has dimension 32, the recipe 384\. Use the same\."),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_recipe_is_refused(
    tiny_base: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    recipe, learner = trained(tiny_base, "adapter")
    write_checkpoint(tmp_path, recipe, learner, {})
    with pytest.raises(RecipeError, match=message):
        build_learner(recipe.model_copy(update={"start": str(tmp_path)} | changes), CPU, seed=0)


def test_a_trained_tower_is_not_dropped_silently(tiny_base: Path, tmp_path: Path) -> None:
    recipe, learner = trained(tiny_base, "refreshed")
    write_checkpoint(tmp_path, recipe, learner, {})
    frozen = {"start": str(tmp_path), "hyperparameters": Hyperparameters(action_mode="adapter")}
    with pytest.raises(
        RecipeError, match=r"start: .* differs from the recipe's base model in .*which the recipe does not"
    ):
        build_learner(recipe.model_copy(update=frozen), CPU, seed=0)


@pytest.mark.parametrize("named", [True, False])
def test_a_packed_checkpoint_can_be_gone_on_from(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setenv("QRAG_MODELS", str(tmp_path / "models"))
    recipe, learner = trained(tiny_base, "adapter")
    write_checkpoint(tmp_path / "whole", recipe, learner, {})
    pack(tmp_path / "whole", tmp_path / "packed")
    follows = recipe.model_copy(update={"start": str(tmp_path / "packed")})
    if not named:  # it holds its base model itself
        follows = follows.model_copy(update={"base": None})
    again = build_learner(follows, CPU, seed=0)
    assert again.network.encoder.config.base_model == read_config(tmp_path / "packed").base_model
    packed = load_encoder(tmp_path / "packed", device="cpu", dtype=again.network.state.dtype)
    for found, expected in zip(served(again.network.serving(again.function)), served(packed), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_a_packed_start_has_learned_is_kept_in_layers_that_are_frozen_now(tmp_path: Path) -> None:
    recipe, learner = trained(Path(MINILM), "frozen")
    write_checkpoint(tmp_path / "whole", recipe, learner, {})
    pack(tmp_path / "whole", tmp_path / "packed")
    settings = Hyperparameters(action_mode="frozen", frozen_layers=6)
    follows = recipe.model_copy(update={"start": str(tmp_path / "packed"), "hyperparameters": settings})
    again = build_learner(follows, CPU, seed=0)
    write_checkpoint(tmp_path / "again", follows, again, {})
    stored = load_encoder(tmp_path / "again", device="cpu", dtype=again.network.state.dtype).state_tower.model
    for name, value in again.network.state.named_parameters():
        assert torch.equal(stored.get_parameter(name), value), name


@pytest.mark.parametrize("field", ["question_share", "first_share"])
def test_a_share_is_that_of_the_start_unless_the_recipe_has_one(tiny_base: Path, tmp_path: Path, field: str) -> None:
    recipe, learner = trained(tiny_base, "frozen")
    write_checkpoint(tmp_path / "without", recipe, learner, {})
    shared = make_recipe(tiny_base, **{field: 0.4}, start=str(tmp_path / "without"))
    write_checkpoint(tmp_path / "with", shared, build_learner(shared, CPU, seed=0), {})
    assert [getattr(read_config(tmp_path / name), field) for name in ("without", "with")] == [0, 0.4]
    for own, expected in ((None, 0.4), (0.0, 0), (0.1, 0.1)):
        follows = make_recipe(tiny_base, **{field: own}, start=str(tmp_path / "with"))
        assert getattr(build_learner(follows, CPU, seed=0).network.encoder.config, field) == expected


# -- what training leaves behind --------------------------------------------------------------------------------------


def trained(base: Path, mode: ActionMode) -> tuple[Recipe, Learner]:
    """A learner after an update that changed everything it may; its target network is the network itself."""
    settings = Hyperparameters(action_mode=mode, learning_rate=0.5, head_learning_rate=5.0, transitions=1000)
    if base != Path(MINILM):
        return make_recipe(base, hyperparameters=settings), updated(make_learner(base, settings))
    recipe = make_recipe(base, hyperparameters=settings)
    config = initial_config(recipe, BASE_MODEL)
    network = QNetwork(config, BASE_MODEL, action_mode=mode, device=CPU, dtype=torch.bfloat16)
    return recipe, updated(Learner(network, network, settings, seed=0))


def updated(learner: Learner) -> Learner:
    learner.update(random_questions(0, 2))
    return learner


def in_memory(learner: Learner) -> tuple[Array, Array]:
    """Embeddings of states and chunks by the learner's networks."""
    network, encoder = learner.network, learner.network.encoder
    with torch.no_grad():
        actions = network.chunks(torch.from_numpy(encoder.embed_actions(encoder.cut_action_inputs(TEXTS))))
        states = network.embed_states(composed(encoder), 2048)
    return states.embeddings.numpy(), actions.numpy()


def composed(encoder: Encoder) -> list[Any]:
    return [encoder.compose_state(encoder.question_tokens(text), encoder.state_tokens(TEXTS[:2])) for text in TEXTS]


def served(encoder: Encoder) -> tuple[Array, Array]:
    """The same by a loaded checkpoint."""
    return encoder.embed_states(composed(encoder)).embeddings, encoder.embed_actions(encoder.cut_action_inputs(TEXTS))


@pytest.mark.parametrize("mode", ["frozen", "adapter", "refreshed"])
@pytest.mark.parametrize("base", [MINILM, "folder"])
def test_a_checkpoint_serves_what_was_trained(tiny_base: Path, tmp_path: Path, base: str, mode: ActionMode) -> None:
    recipe, learner = trained(Path(MINILM) if base == MINILM else tiny_base, mode)
    write_checkpoint(tmp_path / "best", recipe, learner, {"mean": 0.5})
    encoder = load_encoder(tmp_path / "best", device="cpu", dtype=learner.network.state.dtype)
    # The network in memory computes attention in another order.
    tolerance = 0.03 if base == MINILM else 1e-5
    for found, expected in zip(served(encoder), in_memory(learner), strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance)
    untrained = served(learner_at_start(recipe))
    assert not np.allclose(served(encoder)[0], untrained[0], atol=3 * tolerance)
    assert np.allclose(served(encoder)[1], untrained[1], atol=tolerance) == (mode == "frozen")
    assert encoder.function == learner.function
    assert encoder.function.w != 1


def learner_at_start(recipe: Recipe) -> Encoder:
    base = base_directory(str(recipe.base))
    dtype = torch.bfloat16 if recipe.base == MINILM else torch.float32
    return QNetwork(initial_config(recipe, base), base, action_mode="frozen", device=CPU, dtype=dtype).encoder


@pytest.mark.parametrize("base", [MINILM, "folder"])
def test_weights_can_be_read_by_all_who_can_read_the_rest(tiny_base: Path, tmp_path: Path, base: str) -> None:
    recipe, learner = trained(Path(MINILM) if base == MINILM else tiny_base, "adapter")
    write_checkpoint(tmp_path, recipe, learner, {})
    write_stopping(tmp_path, UNTAUGHT)
    modes = {path.name: path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in modes if name.endswith(".safetensors")} == {
        "stopping.safetensors",
        "patch.safetensors" if base == MINILM else "model.safetensors",
    }
    assert set(modes.values()) == {modes["qrag.json"]}


@pytest.mark.parametrize(
    ("mode", "action_kind"), [("frozen", PackageTower), ("adapter", PatchedTower), ("refreshed", PatchedTower)]
)
def test_of_the_packaged_model_only_what_differs_is_stored(
    tmp_path: Path, mode: ActionMode, action_kind: type[object]
) -> None:
    recipe, learner = trained(Path(MINILM), mode)
    write_checkpoint(tmp_path, recipe, learner, {})
    config = read_config(tmp_path)
    assert isinstance(config.state, PatchedTower)
    assert isinstance(config.action, action_kind)
    state = load_file(tmp_path / "state" / "patch.safetensors")
    assert state.keys() == {name.removeprefix("state.") for name in learner.masters.values if name.startswith("state.")}
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < (45 if mode == "refreshed" else 30) << 20
    untrained = initial_config(recipe, BASE_MODEL)
    # Frozen: an index of the base model still serves.
    assert (config.action_fingerprint == untrained.action_fingerprint) == (mode == "frozen")


def test_a_checkpoint_says_where_it_comes_from(tiny_base: Path, tmp_path: Path) -> None:
    recipe, learner = trained(tiny_base, "adapter")
    write_checkpoint(tmp_path, recipe, learner, {"mean": 0.5, "transitions": 12})
    config = read_config(tmp_path)
    assert config.name == "tiny"
    assert isinstance(config.state, DirectoryTower)
    assert config.training is not None
    assert Recipe.model_validate(config.training["recipe"]) == recipe
    assert config.training["validation"] == {"mean": 0.5, "transitions": 12}
    assert config.training["seed"] == 0
    assert re.fullmatch("[0-9a-f]{40}", config.training["commit"] or "0" * 40)
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.pkl"))


def test_a_later_checkpoint_replaces_an_earlier_one(tiny_base: Path, tmp_path: Path) -> None:
    recipe, learner = trained(tiny_base, "adapter")
    write_checkpoint(tmp_path, recipe, learner, {})
    first = served(load_encoder(tmp_path, device="cpu", dtype=torch.float32))
    updated(learner)
    write_checkpoint(tmp_path, recipe, learner, {})
    second = served(load_encoder(tmp_path, device="cpu", dtype=torch.float32))
    np.testing.assert_allclose(second[1], in_memory(learner)[1], atol=1e-5)
    assert not np.allclose(first[1], second[1], atol=1e-3)


# -- export -----------------------------------------------------------------------------------------------------------


def by_others(tower: Path, texts: list[str]) -> Array:
    """The texts' embeddings by sentence-transformers."""
    return np.asarray(SentenceTransformer(str(tower), device="cpu", local_files_only=True).encode(texts))


def test_an_exported_checkpoint_is_whole_and_the_same_elsewhere(tmp_path: Path) -> None:
    recipe, learner = trained(Path(MINILM), "adapter")
    checkpoint, destination = tmp_path / "best", tmp_path / "exported"
    write_checkpoint(checkpoint, recipe, learner, {})
    (checkpoint / "README.md").write_text("the card")
    config = export(checkpoint, destination)
    assert config == read_config(destination)
    assert isinstance(config.state, DirectoryTower)
    assert isinstance(config.action, DirectoryTower)
    assert (destination / "README.md").read_text() == "the card"
    patched = load_encoder(checkpoint, device="cpu", dtype=torch.float32)
    whole = load_encoder(destination, device="cpu", dtype=torch.float32)
    assert whole.function == patched.function
    for ours, theirs in zip(served(whole), served(patched), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(by_others(destination / "action", TEXTS), served(patched)[1], atol=1e-5)
    questions = [patched.compose_state(patched.question_tokens(text), []) for text in TEXTS]
    np.testing.assert_allclose(
        by_others(destination / "state", TEXTS), patched.embed_states(questions).embeddings, atol=1e-5
    )


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(RecipeError, match=r"taken is not empty\. Export into a new folder"):
        export(tmp_path / "checkpoint", tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]
