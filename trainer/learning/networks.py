"""The two towers as they are trained: computing in bfloat16, updated in float32.

The modules that compute are those that will serve, in the same precision. Each trainable parameter has a float32
master copy which the optimiser updates; after each update it is rounded into the module. On a CPU with
bfloat16 arithmetic this is twice as fast as autocast, which casts weights and activations back and forth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from index.arrays import Float32Array, IntArray, TokenIds
from index.encoders.checkpoint import CheckpointConfig
from index.encoders.encoder import Encoder, ReadStates, StateInput, is_first, read_states
from index.encoders.heads import Heads
from index.encoders.loading import load_model
from index.encoders.tokenizer import TextTokenizer
from index.encoders.tower import Tower, project, token_batches
from index.search.function import QFunction
from trainer.hyperparameters import ActionMode
from trainer.learning.heads.bags import Bags, BagTable


class QNetwork(torch.nn.Module):
    """State tower, action tower, the scalars ``w`` and ``b`` of the Q-function, and STOP if it is learned."""

    def __init__(
        self,
        config: CheckpointConfig,
        base: Path,
        *,
        action_mode: ActionMode,
        device: torch.device,
        dtype: torch.dtype,
        stop: bool = False,
        frozen_layers: int = 0,
        heads: Heads | None = None,
    ) -> None:
        super().__init__()
        self.state = _trainable(load_model(base, device, dtype), frozen_layers)
        self.action = load_model(base, device, dtype)
        self.action.requires_grad_(False)
        if action_mode == "refreshed":
            _trainable(self.action, frozen_layers)
        self.projection: torch.nn.Linear | None = None
        if action_mode == "adapter":
            self.projection = torch.nn.Linear(config.dimension, config.dimension, device=device)
            torch.nn.init.eye_(self.projection.weight)
            torch.nn.init.zeros_(self.projection.bias)
        self.w = torch.nn.Parameter(torch.tensor(config.w, device=device))
        self.b = torch.nn.Parameter(torch.tensor(config.b, device=device))
        self.heads = (heads or Heads()).requires_grad_(True).to(device)
        self.stop = torch.nn.Parameter(torch.zeros(config.dimension, device=device)) if stop else None
        """The embedding of STOP, shape ``[d]``; no position, so never rotated."""
        tokenizer = TextTokenizer(base)
        pooling, normalize = config.pooling, config.normalize
        self.state_tower = Tower(self.state, tokenizer, pooling=pooling, normalize=normalize)
        self.action_tower = Tower(self.action, tokenizer, pooling=pooling, normalize=normalize)
        self._projected = Tower(
            self.action, tokenizer, pooling=pooling, normalize=normalize, projection=self.projection
        )
        self.encoder = Encoder(config, self.state_tower, self.action_tower, heads=self.heads)
        """Embeds chunks as the action tower itself does: the adapter comes behind the table of them."""

    def serving(self, function: QFunction) -> Encoder:
        """The networks as they are now, the way a checkpoint of them would serve; not to be kept beyond an update."""
        encoder = Encoder(self.encoder.config, self.state_tower, self._projected, heads=self.heads)
        encoder.function = function
        return encoder

    def chunks(self, base: torch.Tensor) -> torch.Tensor:
        """Chunk embeddings from those of the action tower itself, shape ``[n, d]``."""
        return base if self.projection is None else project(self.projection, base)

    def read_states(self, states: Sequence[StateInput]) -> ReadStates:
        """States with gradients, in one batch; see ``Encoder.embed_states``."""
        with _attention_for_gradients(self.state), _attention_for_gradients(self.action):
            return self._read(states)

    def _read(self, states: Sequence[StateInput]) -> ReadStates:
        read = read_states(self.state_tower, self.heads, states)
        embeddings, config = read.embeddings, self.encoder.config
        if share := config.first_share:
            embeddings = (embeddings + share * self._firsts(states, embeddings)) / (1 + share)
        if share := config.question_share:
            questions = list(dict.fromkeys(state.question for state in states))
            row = {question: number for number, question in enumerate(questions)}
            embedded = self._projected.forward(questions)
            embeddings = embeddings + share * embedded[[row[state.question] for state in states]]
        return read._replace(embeddings=embeddings)

    def _firsts(self, states: Sequence[StateInput], embeddings: torch.Tensor) -> torch.Tensor:
        """The embedding of each state's question before anything is selected, shape ``[states, d]``."""
        row = {state.first: number for number, state in enumerate(states) if is_first(state)}
        if further := [first for first in dict.fromkeys(state.first for state in states) if first not in row]:
            embeddings = torch.cat((embeddings, self.state_tower.forward(further)))
            row |= {first: len(states) + number for number, first in enumerate(further)}
        return embeddings[[row[state.first] for state in states]]

    def chunk_embeddings(self, inputs: Sequence[TokenIds]) -> torch.Tensor:
        """The action tower's embeddings with gradients, in one batch, shape ``[len(inputs), d]``."""
        with _attention_for_gradients(self.action):
            return self.action_tower.forward(inputs)

    def stop_values(self, states: torch.Tensor) -> torch.Tensor:
        """``Q(s, STOP)`` of state embeddings, shape ``[states]``."""
        assert self.stop is not None
        return self.w * (states.float() @ self.stop) + self.b

    @torch.no_grad()
    def embed_states(self, states: Sequence[StateInput], budget: int) -> ReadStates:
        """States without gradients, in batches of at most ``budget`` tokens."""
        batches = list(token_batches([len(state.ids) for state in states], budget))
        parts = [self._read([states[i] for i in batch]) for batch in batches]
        return gathered(joined_states(parts), np.argsort([i for batch in batches for i in batch]).tolist())


def joined_states(parts: Sequence[ReadStates]) -> ReadStates:
    """The states of all parts, in order."""
    first = parts[0]
    return ReadStates(
        torch.cat([part.embeddings for part in parts]),
        None if first.order is None else torch.cat([part.order for part in parts if part.order is not None]),
        None if first.terms is None else [terms for part in parts for terms in part.terms or ()],
        None
        if first.surroundings is None
        else torch.cat([part.surroundings for part in parts if part.surroundings is not None]),
    )


def gathered(states: ReadStates, numbers: Sequence[int]) -> ReadStates:
    """The states with these numbers, in this order."""
    some = list(numbers)
    return ReadStates(
        states.embeddings[some],
        None if states.order is None else states.order[some],
        None if states.terms is None else [states.terms[number] for number in some],
        None if states.surroundings is None else states.surroundings[some],
    )


def detached(states: ReadStates) -> ReadStates:
    """The states without their gradients."""
    return ReadStates(
        states.embeddings.detach(),
        None if states.order is None else states.order.detach(),
        None if states.terms is None else [terms._replace(weights=terms.weights.detach()) for terms in states.terms],
        None if states.surroundings is None else states.surroundings.detach(),
    )


@contextmanager
def _attention_for_gradients(model: PreTrainedModel) -> Iterator[None]:
    """On a CPU the backward pass of torch's fused attention takes ten times its forward pass; the plain one's three."""
    if model.device.type == "cuda":
        yield
        return
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def _trainable(model: PreTrainedModel, frozen_layers: int) -> PreTrainedModel:
    """Gradients for the layers above the lowest ``frozen_layers``.

    The vocabulary stays the base model's: it is half of the weights and learns nothing.
    """
    model.requires_grad_(True)
    model.get_input_embeddings().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.startswith(("embeddings.", "pooler.")):
            parameter.requires_grad_(False)
    for layer in layers_of(model)[:frozen_layers]:
        layer.requires_grad_(False)
    return model


def layers_of(model: PreTrainedModel) -> Sequence[torch.nn.Module]:
    """The layers of an encoder, the lowest first."""
    count = model.config.num_hidden_layers
    return next(
        list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count
    )


class MasterWeights:
    """float32 copies of a network's trainable parameters."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.live = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.values = {
            name: torch.nn.Parameter(parameter.detach().float().clone()) for name, parameter in self.live.items()
        }

    def accumulate(self) -> None:
        """Add the gradients of a backward pass to the masters', in float32."""
        for name, parameter in self.live.items():
            if parameter.grad is None:
                continue
            master = self.values[name]
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the modules that compute."""
        for name, parameter in self.live.items():
            parameter.copy_(self.values[name])


class ChunkTable:
    """Embeddings by the action tower itself, without the adapter: each distinct text is embedded once."""

    def __init__(self, network: QNetwork) -> None:
        self._network = network
        self.row: dict[str, int] = {}
        self._texts: list[str] = []
        lexical = network.encoder.function.lexical
        self._bags = None if lexical is None else BagTable(network.encoder, lexical)
        self._vectors = torch.empty(0, network.encoder.config.dimension, device=network.w.device)

    def rows(self, texts: Iterable[str]) -> IntArray:
        """Where the embedding of each text is; unknown texts are embedded first."""
        texts = list(texts)
        unknown = [text for text in dict.fromkeys(texts) if text not in self.row]
        if unknown:
            first = len(self.row)
            vectors = torch.from_numpy(self._embed(unknown)).to(self._vectors.device)
            if first + len(unknown) > len(self._vectors):
                grown = self._vectors.new_zeros(max(2 * len(self._vectors), first + len(unknown)), vectors.shape[1])
                grown[:first] = self._vectors[:first]
                self._vectors = grown
            self._vectors[first : first + len(unknown)] = vectors
            self.row.update((text, first + i) for i, text in enumerate(unknown))
        return np.array([self.row[text] for text in texts], dtype=np.int64)

    @property
    def vectors(self) -> torch.Tensor:
        """The embeddings of all texts so far, shape ``[texts, d]``."""
        return self._vectors[: len(self.row)]

    def restore(self, texts: Sequence[str], vectors: torch.Tensor) -> None:
        """Take over a stored table."""
        self.row = {text: row for row, text in enumerate(texts)}
        self._texts = list(texts)
        self._vectors = vectors.to(self._vectors.device)

    @property
    def bags(self) -> Bags | None:
        """The bags of all texts so far; none without the lexical signal."""
        if self._bags is None:
            return None
        if len(self._texts) < len(self.row):
            self._texts = list(self.row)
        return self._bags.bags(self._texts)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        return self._vectors[rows]

    def refresh(self) -> None:
        """Embed everything again with the tower as it is now."""
        if self.row:
            self._vectors[: len(self.row)] = torch.from_numpy(self._embed(list(self.row))).to(self._vectors.device)

    def texts(self, rows: IntArray) -> list[str]:
        """The texts of some rows."""
        if len(self._texts) < len(self.row):
            self._texts = list(self.row)
        return [self._texts[row] for row in rows]

    def _embed(self, texts: list[str]) -> Float32Array:
        encoder = self._network.encoder
        return encoder.embed_actions(encoder.cut_action_inputs(texts))
