"""The networks that are trained: which architectures, in what precision, with what stored beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from index.encoders.encoder import StateInput
from index.encoders.loading import load_encoder
from index.errors import CheckpointError
from tests.architectures import ARCHITECTURES, write_base
from tests.trainer.learners import CPU, make_learner, make_network, make_recipe, random_questions
from trainer.bases.models import initial_config
from trainer.hyperparameters import ActionMode, Hyperparameters
from trainer.learning.checkpoints import write_checkpoint
from trainer.learning.networks import ChunkTable, MasterWeights, QNetwork

TEXTS = ["the ball is red", "", "a much longer text: " + "the red ball " * 6, "the ball"]

#: As the models of these architectures are used: contriever, gte-modernbert, Qwen3-Embedding, multilingual-e5.
USED_AS: dict[str, dict[str, Any]] = {
    "bert-mean": {"normalize": False},
    "modernbert-cls": {"normalize": True},
    "qwen3-last": {"normalize": True, "state_prefix": "Instruct: find\nQuery:", "separator": "\n"},
    "xlm-roberta-mean": {"normalize": True, "state_prefix": "query: ", "action_prefix": "passage: "},
}


def states(network: QNetwork) -> list[StateInput]:
    """States of several lengths."""
    encoder = network.encoder
    return [
        encoder.compose_state(encoder.question_tokens(text), encoder.state_tokens(TEXTS[:number]))
        for number, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("mode", ["frozen", "adapter", "refreshed"])
@pytest.mark.parametrize("architecture", USED_AS)
def test_an_architecture_is_trained_and_served(
    tmp_path: Path, architecture: str, mode: ActionMode, shares: tuple[float, float]
) -> None:
    base = write_base(tmp_path / "base", architecture)
    fields = USED_AS[architecture] | {
        "pooling": ARCHITECTURES[architecture].pooling,
        "question_share": shares[0],
        "first_share": shares[1],
    }
    settings = Hyperparameters(action_mode=mode, learning_rate=0.2, head_learning_rate=0.2)
    learner = make_learner(base, settings, **fields)
    network, encoder = learner.network, learner.network.encoder

    def embeddings() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        actions = torch.from_numpy(encoder.embed_actions(encoder.cut_action_inputs(TEXTS)))
        with torch.no_grad():
            return network.embed_states(states(network), 40).embeddings.numpy(), network.chunks(actions).numpy()

    untrained = embeddings()
    learner.update(random_questions(0, 3))
    trained = embeddings()
    assert not np.allclose(trained[0], untrained[0], atol=1e-3)
    assert np.array_equal(trained[1], untrained[1]) == (mode == "frozen")

    recipe = make_recipe(base, hyperparameters=settings, **fields)
    write_checkpoint(tmp_path / "checkpoint", recipe, learner, {})
    served = load_encoder(tmp_path / "checkpoint", device="cpu", dtype=torch.float32)
    assert served.function == learner.function
    assert served.config.state_prefix == fields.get("state_prefix", "")
    np.testing.assert_allclose(served.embed_actions(served.cut_action_inputs(TEXTS)), trained[1], atol=1e-5)
    composed = [
        served.compose_state(served.question_tokens(text), served.state_tokens(TEXTS[:number]))
        for number, text in enumerate(TEXTS)
    ]
    assert composed == states(network)
    np.testing.assert_allclose(served.embed_states(composed).embeddings, trained[0], atol=1e-5)
    np.testing.assert_allclose(
        network.serving(learner.function).embed_states(composed).embeddings, trained[0], atol=1e-5
    )


@pytest.mark.parametrize("architecture", USED_AS)
def test_the_vocabulary_is_not_trained_and_all_layers_are(tmp_path: Path, architecture: str) -> None:
    network = make_network(make_recipe(write_base(tmp_path, architecture)))
    trained = {name: parameter.requires_grad for name, parameter in network.state.named_parameters()}
    layers = [name for name in trained if name.startswith(("encoder.layer.", "layers."))]
    assert layers
    assert all(trained[name] for name in layers)
    for parameter in (*network.state.get_input_embeddings().parameters(), *network.action.parameters()):
        assert not parameter.requires_grad


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    # As gte-*-en-v1.5 and gte-multilingual-base: their architecture is code in their repository.
    base = write_base(tmp_path, "bert-mean")
    config = base / "config.json"
    foreign = '"model_type": "new", "auto_map": {"AutoConfig": "configuration.C", "AutoModel": "modeling.M"}'
    config.write_text(config.read_text().replace('"model_type": "bert"', foreign))
    for module in ("configuration", "modeling"):
        (base / f"{module}.py").write_text("raise SystemExit('the code was run')")
    with pytest.raises(CheckpointError, match="transformers cannot load"):
        make_network(make_recipe(base))


# -- masters ----------------------------------------------------------------------------------------------------------


def test_masters_add_up_gradients_in_float32() -> None:
    module = torch.nn.Linear(3, 2).bfloat16()
    module.bias.requires_grad_(False)
    masters = MasterWeights(module)
    assert masters.values.keys() == {"weight"}
    expected = torch.zeros(2, 3)
    for scale in (1.0, 1.0 + 2**-8, 2**-12):
        module(torch.full((1, 3), scale).bfloat16()).sum().backward()
        assert module.weight.grad is not None
        expected += module.weight.grad.float()
        masters.accumulate()
        assert module.weight.grad is None
    gradient = masters.values["weight"].grad
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert torch.equal(gradient, expected)
    assert not torch.equal(gradient, expected.bfloat16().float())  # the sum is finer than bfloat16


def test_small_steps_are_not_lost() -> None:
    module = torch.nn.Linear(1, 1).bfloat16()
    torch.nn.init.ones_(module.weight)
    masters = MasterWeights(module)
    for _ in range(100):
        with torch.no_grad():
            masters.values["weight"].add_(1e-3)  # less than half a step of bfloat16 at 1
        masters.publish()
    assert module.weight.item() == pytest.approx(1.1, abs=0.005)


# -- the table of chunks ----------------------------------------------------------------------------------------------


@pytest.fixture
def network(tiny_base: Path) -> QNetwork:
    return make_network(make_recipe(tiny_base, hyperparameters=Hyperparameters(action_mode="refreshed")))


def embedded(network: QNetwork, texts: list[str]) -> np.ndarray[Any, Any]:
    return network.encoder.embed_actions(network.encoder.cut_action_inputs(texts))


def test_each_text_has_one_row_with_its_embedding(network: QNetwork) -> None:
    table = ChunkTable(network)
    assert table.rows([]).tolist() == []
    assert table.rows(["a", "b", "a"]).tolist() == [0, 1, 0]
    many = [f"text {number}" for number in range(40)] + ["b", "ball " * 100]
    rows = table.rows(many)
    assert rows.tolist() == [*range(2, 42), 1, 42]
    assert table.texts(rows) == many
    assert table.texts(np.array([0, 2])) == ["a", "text 0"]
    assert len(table.vectors) == 43
    np.testing.assert_allclose(table[torch.from_numpy(rows)].numpy(), embedded(network, many), atol=1e-6)


def test_known_texts_are_not_embedded_again(network: QNetwork) -> None:
    table = ChunkTable(network)
    table.rows(["a", "b"])
    before = table.vectors.clone()
    with torch.no_grad():
        for parameter in network.action.parameters():
            parameter.add_(0.1)
    table.rows(["b", "c"])
    assert torch.equal(table.vectors[:2], before)
    np.testing.assert_allclose(table.vectors[2:].numpy(), embedded(network, ["c"]), atol=1e-6)
    table.refresh()
    np.testing.assert_allclose(table.vectors.numpy(), embedded(network, ["a", "b", "c"]), atol=1e-6)


def test_a_restored_table_goes_on(network: QNetwork) -> None:
    table, other = ChunkTable(network), ChunkTable(network)
    table.rows(["a", "b", "c"])
    other.rows(["z"])
    other.restore(list(table.row), table.vectors.clone())
    for each in (table, other):
        assert each.rows(["c", "d", "a"]).tolist() == [2, 3, 0]
        assert each.texts(np.array([3, 0])) == ["d", "a"]
    assert torch.equal(table.vectors, other.vectors)


def test_a_new_adapter_changes_nothing(tiny_base: Path) -> None:
    adapted = make_network(make_recipe(tiny_base, hyperparameters=Hyperparameters(action_mode="adapter")))
    base = torch.from_numpy(embedded(adapted, TEXTS))
    torch.testing.assert_close(adapted.chunks(base).detach(), base)


def test_the_adapter_learns_from_the_questions_share_too(tiny_base: Path) -> None:
    settings = Hyperparameters(action_mode="adapter")
    gradients = []
    for share in (0.0, 0.3):
        network = make_network(make_recipe(tiny_base, hyperparameters=settings, question_share=share))
        network.read_states(states(network)).embeddings[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        assert network.projection is not None
        gradients.append(network.projection.weight.grad)
    assert gradients[0] is None
    assert gradients[1] is not None
    assert gradients[1].abs().max() > 0


def test_both_networks_start_as_the_base_model(tiny_base: Path) -> None:
    recipe = make_recipe(tiny_base)
    network = make_network(recipe)
    ids = [state.ids for state in states(network)]
    torch.testing.assert_close(network.state_tower.forward(ids), network.action_tower.forward(ids))
    assert (network.w.item(), network.b.item()) == (1, 0)
    assert network.encoder.config == initial_config(recipe, tiny_base)


def test_the_size_of_a_pass_changes_no_embedding(network: QNetwork) -> None:
    inputs = states(network)
    whole = network.embed_states(inputs, 10_000).embeddings
    assert whole.device == CPU
    torch.testing.assert_close(network.embed_states(inputs, 1).embeddings, whole)
    for one, embedding in zip(inputs, whole, strict=True):
        torch.testing.assert_close(network.embed_states([one], 1).embeddings[0], embedding)
