"""A causal language model in this process, as transformers loads it: scoring by teacher forcing, greedy writing."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from index.arrays import TokenIds
from index.encoders.loading import compute_dtype
from trainer.errors import ReaderError
from trainer.readers.protocol import Generation, Prompt, Reply, Request, Score
from trainer.readers.wording import PLAIN, Wording, shortened, wording_of

log = logging.getLogger(__name__)

CPU_TOKENS = 4_096
"""Tokens of the prompts that are read together on a CPU."""

GPU_TOKENS = 32_768
"""Tokens of the prompts that are read together on a GPU."""

MOST_TOKENS = 8_192
"""Most tokens of a prompt and its answer, where the model would read more."""


@dataclass(frozen=True, slots=True)
class _Input:
    """What is asked of a prompt, as tokens."""

    place: int
    prompt: TokenIds
    answer: TokenIds
    """What is to be scored; nothing where the model is to write."""
    contexts: int


class _Results(NamedTuple):
    """What is known of some inputs, each with its place."""

    scores: list[tuple[int, Score]]
    generations: list[tuple[int, Generation]]


@dataclass(frozen=True, slots=True)
class _Before:
    """Prompts that were read, but for their last tokens."""

    cache: DynamicCache
    """Keys and values; what goes on from here is added to them."""
    mask: torch.Tensor
    """Which tokens are no padding, of shape ``[prompts, tokens]``, the last ones included."""

    def of(self, rows: Sequence[int]) -> _Before:
        """The prompts of these rows, each as often as it is named; the cache is that of this one no more."""
        places = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(places)
        return _Before(self.cache, self.mask[places])

    def options(self, tokens: int) -> dict[str, Any]:
        """The options of a forward pass over the last token of each prompt and those after it, so many in all."""
        mask = torch.cat([self.mask, self.mask.new_ones((len(self.mask), tokens - 1))], dim=1)
        return {
            "attention_mask": mask,
            "position_ids": _positions(mask)[:, -tokens:],
            "past_key_values": self.cache,
            "use_cache": True,
        }


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
        # Without what a model's own settings add: a penalty on repetition forbids copying an answer from a context.
        ending = model.generation_config
        plain: Any = GenerationConfig
        model.generation_config = plain(bos_token_id=ending.bos_token_id, eos_token_id=ending.eos_token_id)
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
        """Each request's place and score, those of prompts that are read together one after another."""
        for results in self._read(self._to_score(requests)):
            yield from results.scores

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        """Each prompt's place and what the model writes, those of prompts that are read together one after another."""
        for results in self._read(self._to_answer(prompts, most_tokens), most_tokens):
            yield from results.generations

    def reply(self, requests: Sequence[Request], most_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Each request's place and reply, those of prompts that are read together one after another."""
        prompts = [request.prompt for request in requests]
        scores, generations = dict[int, Score](), dict[int, Generation]()
        for results in self._read([*self._to_score(requests), *self._to_answer(prompts, most_tokens)], most_tokens):
            scores |= results.scores
            generations |= results.generations
            # The two can be of different batches: a prompt near the limit leaves more room to what is written.
            for place in sorted(scores.keys() & generations.keys()):
                yield place, Reply(scores.pop(place), generations.pop(place))

    def _to_score(self, requests: Sequence[Request]) -> list[_Input]:
        answers = [self._ids(self._wording.answer(request.answer)) for request in requests]
        return self._inputs([request.prompt for request in requests], answers, 0)

    def _to_answer(self, prompts: Sequence[Prompt], most_tokens: int) -> list[_Input]:
        return self._inputs(prompts, [()] * len(prompts), most_tokens)

    def _inputs(self, prompts: Sequence[Prompt], answers: Sequence[TokenIds], room: int) -> list[_Input]:
        inputs = [
            self._input(place, prompt, answer, room)
            for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        ]
        cut = sum(item.contexts < len(prompt.contexts) for prompt, item in zip(prompts, inputs, strict=True))
        if cut:
            log.warning("cut prompts=%d of %d longer than %d tokens", cut, len(prompts), self._most_tokens)
        return inputs

    def _input(self, place: int, prompt: Prompt, answer: TokenIds, room: int) -> _Input:
        """The longest prompt that leaves ``room``, besides the answer's, within the model's limit."""
        most = self._most_tokens - len(answer) - room
        for shorter in shortened(prompt):
            ids = self._ids(self._wording.prompt(shorter.prompt), whole=True)
            if len(ids) <= most:
                return _Input(place, tuple(ids), tuple(answer), shorter.contexts)
        raise ReaderError(
            f"A question with its answer is longer than the {self._most_tokens} tokens that the reader reads, without "
            f"any context: {prompt.start!r}. Leave it out, or take a reader that reads more."
        )

    def _ids(self, text: str, *, whole: bool = False) -> TokenIds:
        """``whole`` texts begin as the tokenizer has it; a chat template writes that beginning itself."""
        special = whole and self._wording == PLAIN
        ids: TokenIds = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    def _read(self, inputs: Sequence[_Input], most_tokens: int = 0) -> Iterator[_Results]:
        """What is asked, batch by batch; inputs with the same prompt share its reading."""
        by_prompt: dict[TokenIds, list[_Input]] = {}
        for item in inputs:
            by_prompt.setdefault(item.prompt, []).append(item)
        for batch in _batches(list(by_prompt.values()), self._batch_tokens):
            with torch.inference_mode():
                yield self._results(batch, most_tokens)

    def _results(self, batch: Sequence[Sequence[_Input]], most_tokens: int) -> _Results:
        """The results of some prompts' inputs, each prompt read once.

        Prompts are padded on the left, where what follows goes on from each. All of a prompt but its last token is
        read first: the keys and values of that are what its answers and the writing have in common.
        """
        to_score = [(row, item) for row, items in enumerate(batch) for item in items if item.answer]
        to_write = [(row, item) for row, items in enumerate(batch) for item in items if not item.answer]
        if len(to_score) == len(batch) and not to_write:  # nothing is shared
            return _Results(list(self._scores([item for _, item in to_score], None)), [])
        ids, mask = _padded_left([items[0].prompt for items in batch], self._model.device)
        cache = DynamicCache(config=self._model.config)
        self._model.base_model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=_positions(mask)[:, :-1],
            past_key_values=cache,
            use_cache=True,
        )
        results = _Results([], [])
        if to_score:
            before = _Before(copy.deepcopy(cache) if to_write else cache, mask).of([row for row, _ in to_score])
            results.scores.extend(self._scores([item for _, item in to_score], before))
        if to_write:
            results.generations.extend(self._generations(to_write, ids, _Before(cache, mask), most_tokens))
        return results

    def _scores(self, inputs: Sequence[_Input], before: _Before | None) -> Iterator[tuple[int, Score]]:
        """The scores of answers, one forward pass, over the answers alone where the prompts ``before`` them were read.

        Padding stands on the right, where a causal model cannot see it from the left.
        """
        device = self._model.device
        first = 0 if before is None else -1
        texts = [(*item.prompt[first:], *item.answer[:-1]) for item in inputs]
        length = max(map(len, texts))
        ids = torch.zeros((len(texts), length), dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
        places = [
            (row, len(text) - len(item.answer) + number, token)
            for row, (text, item) in enumerate(zip(texts, inputs, strict=True))
            for number, token in enumerate(item.answer)
        ]
        rows, columns, tokens = torch.tensor(places, device=device).unbind(1)
        options = {"use_cache": False} if before is None else before.options(length)
        with _logits_only_at(self._model, rows, columns):
            logits = self._model(input_ids=ids.to(device), **options).logits[0]
        found = torch.log_softmax(logits.float(), dim=-1).gather(1, tokens[:, None])[:, 0].double().cpu()
        if not found.isfinite().all():
            raise ReaderError(f"The reader's logits overflow in {self._model.dtype}: load it in float32.")
        parts = torch.split(found, [len(item.answer) for item in inputs])
        for item, part in zip(inputs, parts, strict=True):
            yield item.place, Score(float(part.sum()), len(item.answer), len(item.prompt), item.contexts)

    def _generations(
        self, inputs: Sequence[tuple[int, _Input]], ids: torch.Tensor, before: _Before, most_tokens: int
    ) -> Iterator[tuple[int, Generation]]:
        """What the model writes after the prompts of these rows."""
        rows = sorted({row for row, _ in inputs})
        before = before.of(rows)
        written = self._model.generate(
            input_ids=ids[rows],
            attention_mask=before.mask,
            past_key_values=before.cache,
            max_new_tokens=most_tokens,
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id or 0,
        )
        texts = self._tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
        by_row = dict(zip(rows, texts, strict=True))
        for row, item in inputs:
            yield item.place, Generation(by_row[row].strip(), len(item.prompt), item.contexts)


def _batches(readings: Sequence[Sequence[_Input]], tokens: int) -> Iterator[list[Sequence[_Input]]]:
    """Prompts of similar length, each with its inputs, in batches of at most so many tokens; the longest come first.

    Padding counts, and a prompt counts for each answer that is scored: its keys and values are copied as often.
    """
    batch: list[Sequence[_Input]] = []
    rows = 0
    for items in sorted(readings, key=lambda items: -len(items[0].prompt)):
        own = max(1, sum(bool(item.answer) for item in items))
        if batch and (rows + own) * len(batch[0][0].prompt) > tokens:
            yield batch
            batch, rows = [], 0
        batch.append(items)
        rows += own
    if batch:
        yield batch


def _padded_left(prompts: Sequence[TokenIds], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask, each of shape ``[prompts, longest]``."""
    length = max(map(len, prompts))
    ids = torch.zeros((len(prompts), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """The position of each token in its text."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


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

    ``dtype`` is by default bfloat16 where that is faster. Raises :class:`~trainer.errors.ReaderError` where there
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
            folder, dtype=dtype or compute_dtype(device), use_safetensors=True, **options, **unpacked
        )
    except (OSError, ValueError, KeyError) as error:
        raise ReaderError(f"{path} is no causal language model that transformers reads: {error}") from error
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return LocalReader(model.to(device), tokenizer, f"{path.name}:{digest.hexdigest()}")
