"""A causal language model in this process, as transformers loads it: scoring by teacher forcing, greedy writing."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from index.arrays import TokenIds
from index.encoders.loading import native_dtype
from trainer.errors import ReaderError
from trainer.readers.protocol import Generation, Prompt, Request, Score
from trainer.readers.wording import PLAIN, Wording, shortened, wording_of

log = logging.getLogger(__name__)

CPU_TOKENS = 2_048
"""Tokens of a forward pass on a CPU."""

GPU_TOKENS = 32_768
"""Tokens of a forward pass on a GPU."""

MOST_TOKENS = 8_192
"""Most tokens of a prompt and its answer, where the model would read more."""


@dataclass(frozen=True, slots=True)
class _Input:
    """A request or a prompt as tokens."""

    place: int
    prompt: TokenIds
    answer: TokenIds
    contexts: int

    @property
    def read(self) -> int:
        """Tokens of the forward pass: the last one of an answer is predicted, not read."""
        return len(self.prompt) + max(0, len(self.answer) - 1)


class LocalReader:
    """A causal model with its tokenizer, as a :class:`~trainer.readers.protocol.Reader`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        most_tokens: int = MOST_TOKENS,
        batch_tokens: int | None = None,
    ) -> None:
        """``name`` says which weights these are; ``batch_tokens`` (default: by device) is a matter of speed alone."""
        self._model: Any = model  # transformers' methods have no types
        torch.nn.Module.eval(model).requires_grad_(False)
        self._tokenizer = tokenizer
        self._wording = wording_of(tokenizer)
        self._most_tokens = min(most_tokens, getattr(model.config, "max_position_embeddings", most_tokens))
        self._batch_tokens = batch_tokens or (CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS)
        self._name = name

    @property
    def identity(self) -> str:
        """The weights' name, the precision, the limit and the wording."""
        return f"{self._name} {self._model.dtype} {self._most_tokens} {self._wording!r}"

    @property
    def wording(self) -> Wording:
        """The words around an instruction: the tokenizer's chat template."""
        return self._wording

    def log_probability(self, requests: Sequence[Request]) -> Iterator[tuple[int, Score]]:
        """Each request's place and score, those of a forward pass together."""
        inputs = [
            self._input(place, request.prompt, self._ids(self._wording.answer(request.answer)))
            for place, request in enumerate(requests)
        ]
        self._say_what_is_cut([request.prompt for request in requests], inputs)
        for batch in _batches(inputs, self._batch_tokens):
            yield from self._scores(batch)

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        """Each prompt's place and what the model writes, those of a batch together."""
        inputs = [self._input(place, prompt, (), most_tokens) for place, prompt in enumerate(prompts)]
        self._say_what_is_cut(prompts, inputs)
        for batch in _batches(inputs, self._batch_tokens):
            yield from self._generations(batch, most_tokens)

    def _input(self, place: int, prompt: Prompt, answer: TokenIds, room: int = 0) -> _Input:
        """The longest prompt that leaves ``room``, besides the answer's, within the model's limit."""
        most = self._most_tokens - len(answer) - room
        for shorter in shortened(prompt):
            ids = self._ids(self._wording.prompt(shorter.prompt), whole=True)
            if len(ids) <= most:
                return _Input(place, ids, answer, shorter.contexts)
        raise ReaderError(
            f"A question with its answer is longer than the {self._most_tokens} tokens that the reader reads, without "
            f"any context: {(prompt.question or '')[:80]!r}. Leave it out, or take a reader that reads more."
        )

    def _ids(self, text: str, *, whole: bool = False) -> TokenIds:
        """``whole`` texts begin as the tokenizer has it; a chat template writes that beginning itself."""
        special = whole and self._wording == PLAIN
        ids: TokenIds = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    def _say_what_is_cut(self, prompts: Sequence[Prompt], inputs: Sequence[_Input]) -> None:
        cut = sum(item.contexts < len(prompt.contexts) for prompt, item in zip(prompts, inputs, strict=True))
        if cut:
            log.warning("cut prompts=%d of %d longer than %d tokens", cut, len(prompts), self._most_tokens)

    def _scores(self, batch: Sequence[_Input]) -> Iterator[tuple[int, Score]]:
        """One forward pass. Padding stands on the right, where a causal model cannot see it from the left."""
        length = max(item.read for item in batch)
        ids = torch.zeros((len(batch), length), dtype=torch.long)
        for row, item in enumerate(batch):
            ids[row, : item.read] = torch.tensor([*item.prompt, *item.answer][: item.read])
        places = [
            (row, len(item.prompt) - 1 + number, token)
            for row, item in enumerate(batch)
            for number, token in enumerate(item.answer)
        ]
        rows, columns, tokens = torch.tensor(places, device=self._model.device).unbind(1)
        with torch.inference_mode(), _logits_only_at(self._model, rows, columns):
            logits = self._model(input_ids=ids.to(self._model.device), use_cache=False).logits[0]
            found = torch.log_softmax(logits.float(), dim=-1).gather(1, tokens[:, None])[:, 0].double().cpu()
        if not found.isfinite().all():
            raise ReaderError(f"The reader's logits overflow in {self._model.dtype}: load it in float32.")
        parts = torch.split(found, [len(item.answer) for item in batch])
        for item, part in zip(batch, parts, strict=True):
            yield item.place, Score(float(part.sum()), len(item.answer), len(item.prompt), item.contexts)

    def _generations(self, batch: Sequence[_Input], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        """One batch, padded on the left, where what is written goes on from each prompt."""
        length = max(len(item.prompt) for item in batch)
        ids = torch.zeros((len(batch), length), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, item in enumerate(batch):
            ids[row, length - len(item.prompt) :] = torch.tensor(item.prompt)
            mask[row, length - len(item.prompt) :] = 1
        device = self._model.device
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=most_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self._tokenizer.pad_token_id or 0,
            )
        texts = self._tokenizer.batch_decode(written[:, length:], skip_special_tokens=True)
        for item, text in zip(batch, texts, strict=True):
            yield item.place, Generation(text.strip(), len(item.prompt), item.contexts)


def _batches(inputs: Sequence[_Input], tokens: int) -> Iterator[list[_Input]]:
    """Inputs of similar length in batches of at most so many tokens with their padding, the longest first."""
    batch: list[_Input] = []
    for item in sorted(inputs, key=lambda item: -item.read):
        if batch and (len(batch) + 1) * batch[0].read > tokens:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


@contextmanager
def _logits_only_at(model: Any, rows: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
    """Within the block the model's logits have shape ``[1, places, vocabulary]``: those of the answers' tokens alone.

    The vocabulary's matrix is a third of a small model, and a prompt is many times as long as its answer.
    """
    head: torch.nn.Module = model.get_output_embeddings()

    def picked(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][rows, columns][None], *arguments[1:])

    hook = head.register_forward_pre_hook(picked)
    try:
        yield
    finally:
        hook.remove()


def load_reader(path: Path, device: torch.device, dtype: torch.dtype | None = None) -> LocalReader:
    """The reader in a folder (``config.json``, ``*.safetensors``, a tokenizer), or in a GGUF file.

    ``dtype`` is by default bfloat16 where the hardware has it. Raises :class:`~trainer.errors.ReaderError` where there
    is no such model, or a package is missing that reads it.
    """
    gguf = path.suffix == ".gguf"
    files = [path] if gguf else sorted(path.glob("*.safetensors"))
    if not files or not all(file.is_file() for file in files):
        raise ReaderError(f"{path} is no language model: name a folder with *.safetensors, or a GGUF file.")
    if gguf and (missing := [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]):
        raise ReaderError(f"A GGUF file needs the package {missing[0]}: pip install '.[reader]'")
    folder = path.parent if gguf else path
    options: dict[str, Any] = {"gguf_file": path.name} if gguf else {}
    # Unpacked once, its matrices are multiplied as any model's; packed ones are slower and always in float32.
    unpacked: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True)} if gguf else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or native_dtype(device), use_safetensors=True, **options, **unpacked
        )
    except (OSError, ValueError, KeyError) as error:
        raise ReaderError(f"{path} is no causal language model that transformers reads: {error}") from error
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return LocalReader(model.to(device), tokenizer, f"{path.name}:{digest.hexdigest()}")
