"""The two encoders of a checkpoint: texts to tokens, tokens to embeddings.

The *state tower* reads ``question [SEP] chunk [SEP] chunk ...``, the *action tower* one chunk.
Both run in inference mode, in bfloat16 where the hardware computes with it natively, and return
float32 embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from index.arrays import Float32Array, TokenIds
from index.encoders.checkpoint import (
    PROJECTION,
    CheckpointConfig,
    patch_of,
    read_config,
    read_stopping,
    tower_directory,
)
from index.encoders.packing import is_packed, pack_inputs, packed_hidden_states
from index.episodes.stopping import UNTAUGHT, Stopping
from index.errors import CheckpointError
from index.search.scoring import QFunction

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar for loading six layers would only blur the log


CPU_BATCH_TOKENS = 2048
"""Tokens in one forward pass on a CPU: enough to fill the cores, short enough not to keep others waiting."""

GPU_BATCH_TOKENS = 65_536

QUESTIONS_KEPT = 4096
"""Float32Array of questions kept for the next steps of their episodes: 6 MB of 384 dimensions."""


class TextTokenizer:
    """A model's tokenizer, without special tokens; satisfies :class:`index.chunking.Tokenizer`."""

    def __init__(self, directory: Path) -> None:
        loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self._backend = loaded.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        wrapped = self._backend.encode("a").ids
        bare = self._backend.encode("a", add_special_tokens=False).ids
        before = next(i for i in range(len(wrapped)) if wrapped[i : i + len(bare)] == bare)
        self.before: list[int] = wrapped[:before]
        """Special tokens in front of every input."""
        self.after: list[int] = wrapped[before + len(bare) :]
        """Special tokens behind every input."""
        self.padding: int = loaded.pad_token_id if loaded.pad_token_id is not None else 0
        # From here on a "[SEP]" inside a user's text is text, not the separator.
        self._backend.encode_special_tokens = True

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [encoding.ids for encoding in self._fast(texts)]

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
        return [len(encoding.ids) for encoding in self._fast(texts)]

    def token_ends(self, text: str) -> list[int]:
        """Where each token of the text ends, as a character offset, in order."""
        return [end for _, end in self._backend.encode(text, add_special_tokens=False).offsets]

    def separator(self, text: str) -> list[int]:
        """Token ids of a separator: the special token of that name, else the text's tokens."""
        special = self._backend.token_to_id(text)
        return [special] if special is not None else self.tokenize([text])[0]

    def _fast(self, texts: Sequence[str]) -> list:  # type: ignore[type-arg]  # tokenizers has no stubs
        encodings: list = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)  # type: ignore[type-arg]
        return encodings


class Tower:
    """One encoder: token ids to embeddings.

    The model is set to packed inputs where it can read them. ``projection`` is an adapter behind a frozen model: a
    linear map of its (normalised) embedding.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: TextTokenizer,
        *,
        pooling: str,
        normalize: bool,
        projection: torch.nn.Linear | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model
        pack_inputs(model)
        self.projection = projection
        self._pooling = pooling
        self._normalize = normalize
        self._device = next(model.parameters()).device
        self.batch_tokens = GPU_BATCH_TOKENS if self._device.type == "cuda" else CPU_BATCH_TOKENS

    def embed(self, inputs: Sequence[TokenIds]) -> Float32Array:
        """Float32Array of complete inputs (special tokens included), shape ``[len(inputs), d]``.

        Inputs of similar length share a batch, so little is computed for padding.
        """
        embeddings: list[Float32Array] = []
        order: list[int] = []
        for batch in token_batches([len(ids) for ids in inputs], self.batch_tokens, padded=not is_packed(self.model)):
            embeddings.append(self._forward([inputs[i] for i in batch]))
            order.extend(batch)
        result = np.empty((len(inputs), embeddings[0].shape[1]), dtype=np.float32)
        result[order] = np.concatenate(embeddings)
        return result

    @torch.inference_mode()
    def _forward(self, inputs: Sequence[TokenIds]) -> Float32Array:
        embeddings: Float32Array = self.forward(inputs).cpu().numpy()
        return embeddings

    def forward(self, inputs: Sequence[TokenIds]) -> torch.Tensor:
        """The same in one batch, as a float32 tensor on the tower's device that gradients can flow through."""
        pooled = self._pooled_packed(inputs) if is_packed(self.model) else self._pooled_padded(inputs)
        if self._normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        return pooled if self.projection is None else project(self.projection, pooled)

    def _pooled_packed(self, inputs: Sequence[TokenIds]) -> torch.Tensor:
        hidden = (each.float() for each in packed_hidden_states(self.model, inputs))
        if self._pooling == "mean":
            return torch.stack([each.mean(dim=0) for each in hidden])
        return torch.stack([each[0 if self._pooling == "cls" else -1] for each in hidden])

    def _pooled_padded(self, inputs: Sequence[TokenIds]) -> torch.Tensor:
        lengths = torch.tensor([len(ids) for ids in inputs])
        padded = np.full((len(inputs), int(lengths.max())), self.tokenizer.padding, dtype=np.int64)
        for row, ids in zip(padded, inputs, strict=True):
            row[: len(ids)] = ids
        lengths = lengths.to(self._device)
        mask = torch.arange(padded.shape[1], device=self._device)[None] < lengths[:, None]
        hidden = self.model(
            input_ids=torch.from_numpy(padded).to(self._device), attention_mask=mask.long()
        ).last_hidden_state.float()
        return _pool(hidden, mask, lengths, self._pooling)


def project(projection: torch.nn.Linear, embeddings: torch.Tensor) -> torch.Tensor:
    """The adapter's embeddings, shape ``[n, d]``, normalised."""
    return torch.nn.functional.normalize(projection(embeddings), dim=1)


def _pool(hidden: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector ``[n, d]`` for each sequence of ``hidden``, shape ``[n, tokens, d]``, padded on the right."""
    if pooling == "mean":
        return (hidden * mask[..., None]).sum(dim=1) / lengths[:, None]
    if pooling == "cls":
        return hidden[:, 0]
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]


def token_batches(lengths: Sequence[int], budget: int, *, padded: bool = True) -> Iterator[list[int]]:
    """Indices of inputs, longest first, in batches of at most ``budget`` tokens, padding included if they are padded.

    An input longer than the budget gets a batch of its own.
    """
    batch: list[int] = []
    longest = tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and ((len(batch) + 1) * longest if padded else tokens + lengths[i]) > budget:
            yield batch
            batch = []
        if not batch:
            longest, tokens = lengths[i], 0
        batch.append(i)
        tokens += lengths[i]
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class StateInput:
    """A tokenised state; ``dropped`` tokens of its chunks did not fit the state tower."""

    ids: list[int]
    dropped: int
    question: tuple[int, ...]
    """Its question alone, as the action tower reads it."""


class Encoder:
    """A loaded checkpoint: both towers and the Q-function around them."""

    def __init__(self, config: CheckpointConfig, state: Tower, action: Tower, stopping: Stopping = UNTAUGHT) -> None:
        self.config = config
        self.stopping = stopping
        self.function: QFunction = config.function
        self.state_tower = state
        self.action_tower = action
        self._separator = state.tokenizer.separator(config.separator)
        self._questions: dict[tuple[int, ...], Float32Array] = {}
        self.action_batch_tokens = action.batch_tokens

    @property
    def device(self) -> torch.device:
        """Where the towers compute."""
        return self.state_tower._device

    @property
    def chunk_tokenizer(self) -> TextTokenizer:
        """Counts tokens the way the action tower does."""
        return self.action_tower.tokenizer

    @property
    def chunk_limit(self) -> int:
        """Most tokens of a chunk that the action tower reads whole."""
        tokenizer = self.action_tower.tokenizer
        prefix = len(tokenizer.tokenize([self.config.action_prefix])[0])
        return self.config.action_tokens - len(tokenizer.before) - len(tokenizer.after) - prefix

    @property
    def input_limit(self) -> int:
        """Most tokens of a complete input of the action tower."""
        return self.config.action_tokens

    @property
    def question_limit(self) -> int:
        """Most tokens of a question: half of what the state tower reads, so that evidence finds room."""
        return self.config.state_tokens // 2

    def question_tokens(self, question: str) -> list[int]:
        """The question's tokens, with the checkpoint's prefix."""
        return self.state_tower.tokenizer.tokenize([self.config.state_prefix + question])[0]

    def state_tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of chunks the way the state tower reads them."""
        return self.state_tower.tokenizer.tokenize(texts)

    def compose_state(self, question: TokenIds, chunks: Sequence[TokenIds]) -> StateInput:
        """``question [SEP] chunk [SEP] chunk ...`` with special tokens, within the tower's limit.

        Where it does not fit, the longest chunks are shortened first; nothing is taken from the
        question.
        """
        tokenizer = self.state_tower.tokenizer
        room = self.config.state_tokens - len(tokenizer.before) - len(tokenizer.after) - len(question)
        kept = _shortened([len(ids) for ids in chunks], room - len(chunks) * len(self._separator))
        body = list(question)
        for ids, length in zip(chunks, kept, strict=True):
            if length:
                body += [*self._separator, *ids[:length]]
        dropped = sum(map(len, chunks)) - sum(kept)
        alone = question[: self.config.action_tokens - len(tokenizer.before) - len(tokenizer.after)]
        return StateInput(
            ids=[*tokenizer.before, *body, *tokenizer.after],
            dropped=dropped,
            question=(*tokenizer.before, *alone, *tokenizer.after),
        )

    def embed_states(self, states: Sequence[StateInput]) -> Float32Array:
        """State embeddings, shape ``[len(states), d]``: ``E_s(s) + question_share · E_a(question)``.

        The second term, ours and not the paper's, is what training cannot unlearn: how like the question a chunk is.
        """
        embeddings = self.state_tower.embed([state.ids for state in states])
        if share := self.config.question_share:
            embeddings += np.float32(share) * self._embed_questions([state.question for state in states])
        return embeddings

    def _embed_questions(self, questions: Sequence[tuple[int, ...]]) -> Float32Array:
        """Each question is embedded once, however many steps its episode takes."""
        if unknown := [question for question in dict.fromkeys(questions) if question not in self._questions]:
            if len(self._questions) + len(unknown) > QUESTIONS_KEPT:
                self._questions = {known: self._questions[known] for known in set(questions).difference(unknown)}
            self._questions.update(zip(unknown, self.action_tower.embed(unknown), strict=True))
        return np.stack([self._questions[question] for question in questions])

    def action_inputs(self, texts: Sequence[str]) -> list[list[int]]:
        """Complete inputs of the action tower for chunks within :attr:`chunk_limit`."""
        tokenizer = self.action_tower.tokenizer
        prefixed = [self.config.action_prefix + text for text in texts]
        return [[*tokenizer.before, *ids, *tokenizer.after] for ids in tokenizer.tokenize(prefixed)]

    def cut_action_inputs(self, texts: Sequence[str]) -> list[TokenIds]:
        """The same for texts of any length: what the action tower cannot read is cut off."""
        limit, end = self.config.action_tokens, self.action_tower.tokenizer.after
        return [ids if len(ids) <= limit else [*ids[: limit - len(end)], *end] for ids in self.action_inputs(texts)]

    def embed_actions(self, inputs: Sequence[TokenIds]) -> Float32Array:
        """Chunk embeddings, shape ``[len(inputs), d]``."""
        return self.action_tower.embed(inputs)

    def warm_up(self) -> None:
        """Load whatever the first forward pass loads; on a GPU, whose memory is the scarce one, run the largest too."""
        self.embed_states([self.compose_state(self.question_tokens("warm up"), [])])
        if self.device.type == "cuda":
            self.run_largest_batches()

    def run_largest_batches(self) -> None:
        """One forward pass of each tower over as much as it will ever get: memory runs out now or never."""
        for tower, longest in (
            (self.state_tower, self.config.state_tokens),
            (self.action_tower, self.config.action_tokens),
        ):
            tower.embed([[tower.tokenizer.padding] * longest] * max(1, tower.batch_tokens // longest))


def _shortened(lengths: Sequence[int], room: int) -> list[int]:
    """Lengths cut to one common maximum, the largest with which they fit into ``room`` together."""
    left = room
    cap = max(lengths, default=0)
    for taken, length in enumerate(sorted(lengths)):
        share = max(left, 0) // (len(lengths) - taken)
        if length > share:
            cap = share
            break
        left -= length
    return [min(length, cap) for length in lengths]


def resolve_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one; any other name is torch's."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CheckpointError(f"QRAG_DEVICE={name} is no device of torch. Set auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("QRAG_DEVICE asks for a GPU and torch sees none. Set QRAG_DEVICE=auto.")
    return device


def native_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def load_encoder(checkpoint: Path, *, device: str = "auto", dtype: torch.dtype | None = None) -> Encoder:
    """Load a checkpoint directory; weights are verified and only safetensors are read.

    Raises :class:`~index.errors.CheckpointError` if it cannot be loaded or contradicts itself.
    """
    config = read_config(checkpoint)
    where = resolve_device(device)
    directories = {source: tower_directory(checkpoint, source) for source in (config.state, config.action)}
    if config.question_share and len({(each / "tokenizer.json").read_bytes() for each in directories.values()}) > 1:
        raise CheckpointError(
            f"{config.name} has a question_share, so both towers read the question, but their tokenizers differ. "
            "Export the checkpoint again with towers of one base model."
        )
    models = {
        source: load_model(directory, where, dtype or native_dtype(where)) for source, directory in directories.items()
    }
    towers = {
        source: Tower(
            model,
            _load_tokenizer(directories[source]),
            pooling=config.pooling,
            normalize=config.normalize,
            projection=_apply_patch(model, patch_of(checkpoint, source), config),
        )
        for source, model in models.items()
    }
    for source, model in models.items():
        size: int = model.config.hidden_size
        if size != config.dimension:
            raise CheckpointError(
                f"{config.name} claims dimension {config.dimension}, but {directories[source].name} has {size}. "
                "Export the checkpoint again."
            )
    return Encoder(config, towers[config.state], towers[config.action], read_stopping(checkpoint, config))


def _apply_patch(
    model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], config: CheckpointConfig
) -> torch.nn.Linear | None:
    """Replace the weights of a model that a checkpoint stores; returns the projection behind it, if there is one."""
    start = f"{PROJECTION}."
    behind = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
    replaced = {key: value for key, value in tensors.items() if not key.startswith(start)}
    remedy = "Export the checkpoint again."
    try:
        if unknown := model.load_state_dict(replaced, strict=False).unexpected_keys:
            raise CheckpointError(f"{config.name} replaces {unknown[0]}, which its base model does not have. {remedy}")
        if not behind:
            return None
        projection = torch.nn.Linear(model.config.hidden_size, config.dimension)
        projection.load_state_dict(behind)
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights that {config.name} stores do not fit its base model: {error} {remedy}"
        ) from error
    return projection.requires_grad_(False).to(model.device)


def _load_tokenizer(directory: Path) -> TextTokenizer:
    # Without this file transformers makes up a vocabulary in which every word is unknown.
    if not (directory / "tokenizer.json").is_file():
        raise CheckpointError(f"{directory} has no tokenizer.json. Export the checkpoint again.")
    try:
        return TextTokenizer(directory)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"transformers cannot load the tokenizer in {directory}: {error} Export the checkpoint again."
        ) from error


def load_model(directory: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A tower's model in evaluation mode.

    Raises :class:`~index.errors.CheckpointError` if it cannot be loaded whole.
    """
    try:
        model: PreTrainedModel
        model, loading = AutoModel.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"transformers cannot load {directory}: {error} Export the checkpoint again.") from error
    # transformers fills what is missing with random numbers; only the pooler is not read here.
    if missing := sorted(key for key in loading["missing_keys"] if not key.startswith("pooler.")):
        raise CheckpointError(
            f"The weights in {directory} lack {len(missing)} parameters of its config.json, {missing[0]} for one. "
            "Export the checkpoint again."
        )
    model.config.use_cache = False
    torch.nn.Module.eval(model)
    torch.nn.Module.to(model, device)
    return model
