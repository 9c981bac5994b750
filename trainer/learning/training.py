"""A training run: the loop around the algorithm, with validation, checkpoints, logs and resumption.

A run's folder holds ``recipe.yaml``, ``state/`` (to go on from), ``best/`` (the checkpoint that was best on the
validation questions), ``validation.jsonl`` and TensorBoard's event files.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from index.encoders.cross_encoder import CrossEncoder
from index.encoders.loading import compute_dtype
from trainer.bases.models import base_directory, base_of, initial_config, reranker_directory, start_directory
from trainer.errors import ResumeError
from trainer.evaluation.counting import by_task, recall
from trainer.evaluation.playing import play
from trainer.evaluation.vectors import CACHE_FROM, ChunkVectors, embed_in_order, tokenizer_of
from trainer.judging.judge import Judge
from trainer.judging.opening import opened_judge
from trainer.learning.checkpoints import start_from, write_checkpoint
from trainer.learning.distributed import join, own_share, wait_for_others
from trainer.learning.heads.starting import initial_heads
from trainer.learning.learner import Learner
from trainer.learning.networks import QNetwork
from trainer.learning.state import load_state, save_state, stored_state
from trainer.learning.teachers import Reranker
from trainer.recipe import Recipe
from trainer.tasks.mixture import Mixture, build_mixture

log = logging.getLogger(__name__)

OLD_BEST = "best.old"

SAVE_SECONDS = 300.0
"""Between two states on disk: the most that an interruption costs."""


def train(
    recipe: Recipe,
    data: Path,
    run: Path,
    *,
    device: torch.device,
    resume: bool = False,
    cache: Path | None = None,
    cache_from: int = CACHE_FROM,
    save_seconds: float = SAVE_SECONDS,
) -> Path:
    """Train as the recipe says; returns the folder of the best checkpoint.

    With ``cache``, a folder, the chunks known beforehand are embedded first, and other runs find them there: lists of
    ``cache_from`` and more. Beside each validation a state is stored every ``save_seconds``.

    Under ``torchrun`` each process plays its own episodes and gradients are averaged; the first one writes. Raises
    :class:`~trainer.errors.TrainerError` where the data, the recipe or the run's folder are not what they should be.
    """
    rank, device = join(device)
    _check_folder(run, recipe, resume, rank)
    mixture = build_mixture(recipe, data)
    with opened_judge(recipe, device, cache or run) as judge:
        learner = build_learner(
            recipe, device, seed=recipe.seed + 1000 * rank, texts=mixture.known_chunks(), judge=judge
        )
        if cache is not None and not resume:  # what is resumed has its table
            _fill_table(learner, mixture, cache, cache_from)
        _train(learner, recipe, mixture, run, rank, resume=resume, save_seconds=save_seconds)
    if rank == 0:  # others are done while it still validates
        log.info("the best checkpoint is %s", run / "best")
    return run / "best"


def _train(
    learner: Learner, recipe: Recipe, mixture: Mixture, run: Path, rank: int, *, resume: bool, save_seconds: float
) -> None:
    """The loop, from its beginning or from the stored state."""
    best, trained_seconds = -1.0, 0.0
    if resume:
        extra = load_state(run, learner)
        best, trained_seconds = extra["best"], extra["seconds"]
        if rank == 0:
            _forget_after(run / "validation.jsonl", learner.seen)
            if (run / OLD_BEST).exists() and not (run / "best").exists():
                (run / OLD_BEST).rename(run / "best")
        if rank > 0:  # the state has the first process's random numbers: the others must not play the same episodes
            other = np.random.default_rng([recipe.seed, rank, learner.updates])
            learner.generator.bit_generator.state = other.bit_generator.state
    validation = Validation(mixture)
    settings = recipe.hyperparameters
    with (
        _writer(run, rank) as writer,
        tqdm(total=settings.transitions, initial=learner.seen, unit="transition", miniters=1, disable=rank > 0) as bar,
    ):
        began = saved = time.monotonic()

        def save() -> None:
            if rank == 0:
                save_state(run, learner, {"best": best, "seconds": trained_seconds + time.monotonic() - began})

        due = (learner.seen // recipe.validate_every + 1) * recipe.validate_every
        while learner.seen < settings.transitions:
            before = learner.seen
            figures = learner.update(mixture.draw(settings.environments, learner.generator))
            bar.update(learner.seen - before)
            seconds = trained_seconds + time.monotonic() - began
            for name, value in figures.items():
                writer.add_scalar(f"train/{name}", value, learner.seen)
            writer.add_scalar("train/transitions_per_second", learner.seen / seconds, learner.seen)
            if rank == 0 and (learner.seen >= due or learner.seen >= settings.transitions):
                due = (learner.seen // recipe.validate_every + 1) * recipe.validate_every
                recalls = validation.measure(learner)
                mean = float(np.mean(list(recalls.values())))
                for task, value in recalls.items():
                    writer.add_scalar(f"validation/{task}", value, learner.seen)
                writer.add_scalar("validation/mean", mean, learner.seen)
                record = {"transitions": learner.seen, "seconds": round(seconds, 1), "mean": mean, **recalls}
                with (run / "validation.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                shown = " ".join(f"{task}={value:.3f}" for task, value in recalls.items())
                log.info("validation transitions=%d seconds=%.0f mean=%.4f %s", learner.seen, seconds, mean, shown)
                bar.set_postfix(validation=f"{mean:.3f}")
                # Recall knows nothing of STOP: where that is learned, the last weights are the ones to keep.
                if mean > best or settings.stop:
                    best = mean
                    _replace_checkpoint(run / "best", recipe, learner, record)
                save()
                saved = time.monotonic()
            elif time.monotonic() - saved > save_seconds:
                save()
                saved = time.monotonic()


def build_learner(
    recipe: Recipe,
    device: torch.device,
    *,
    seed: int,
    texts: Iterable[list[str]] = (),
    judge: Judge | None = None,
) -> Learner:
    """Both networks from the base model, and the learner around them.

    How rare tokens are is counted in the ``texts``, or was in those of the run to go on from.
    """
    torch.manual_seed(recipe.seed)
    torch.use_deterministic_algorithms(device.type == "cpu")
    # A debugging aid that costs a fifth of the speed.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    base = base_directory(base_of(recipe))
    config = initial_config(recipe, base)
    settings = recipe.hyperparameters
    heads = initial_heads(recipe, base, config.dimension, texts)
    network, target = (
        QNetwork(
            config,
            base,
            action_mode=settings.action_mode,
            device=device,
            dtype=compute_dtype(device),
            stop=settings.stop,
            frozen_layers=settings.frozen_layers,
            heads=copy.deepcopy(heads),
        )
        for _ in range(2)
    )
    if recipe.start is not None:
        start_from(network, start_directory(recipe.start))
        target.load_state_dict(network.state_dict())
    reranker = None
    if recipe.reranker is not None:
        encoder = CrossEncoder(reranker_directory(recipe.reranker), device)
        reranker = Reranker(encoder, together=device.type != "cpu")
    return Learner(network, target, settings, seed, reranker=reranker, judge=judge)


def _fill_table(learner: Learner, mixture: Mixture, cache: Path, cache_from: int) -> None:
    encoder = learner.network.encoder
    lists = list(mixture.known_chunks())
    for texts in own_share(lists):
        embed_in_order(encoder, texts, cache, cache_from=cache_from)
    wait_for_others()
    # All of them are in the cache now, but for short lists, which are embedded in no time.
    matrices = [embed_in_order(encoder, texts, cache, cache_from=cache_from) for texts in lists]
    blocks = [torch.from_numpy(np.array(matrix)) for matrix in matrices]
    if blocks:
        learner.table.restore(list(chain.from_iterable(lists)), torch.cat(blocks))


class Validation:
    """Greedy episodes over the held-out questions, by the service's own code, with the networks as they are."""

    def __init__(self, mixture: Mixture) -> None:
        self._tasks = by_task(mixture.validation)

    def measure(self, learner: Learner) -> dict[str, float]:
        """All-support recall at the budget, by task."""
        recalls = {}
        encoder = learner.network.serving(learner.function)
        if learner.settings.action_mode == "refreshed":
            learner.table.refresh()  # what is stored is older than the tower that would be kept
        for task, questions in self._tasks.items():
            vectors = learner_vectors(learner, (chunk for question in questions for chunk in question.chunks))
            recalls[task] = recall(questions, play(encoder, questions, vectors)).at_budget
        return recalls


def learner_vectors(learner: Learner, texts: Iterator[str]) -> ChunkVectors:
    """Embeddings of texts with the networks as they are, through the table of what is embedded already."""
    distinct = list(dict.fromkeys(texts))
    rows = torch.from_numpy(learner.table.rows(distinct))
    with torch.no_grad():
        matrix = learner.network.chunks(learner.table[rows]).cpu().numpy()
    return ChunkVectors(distinct, matrix, tokenizer_of(learner.network.serving(learner.function)))


def _forget_after(file: Path, seen: int) -> None:
    """Drop the records of what an interruption undid: they will be written again."""
    if file.exists():
        records = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [record for record in records if record.endswith("\n") and json.loads(record)["transitions"] <= seen]
        new = file.with_name("validation.jsonl.new")
        new.write_text("".join(kept), encoding="utf-8")
        new.replace(file)


def _replace_checkpoint(best: Path, recipe: Recipe, learner: Learner, record: dict[str, Any]) -> None:
    """Whole or not at all: an interruption between the two renames leaves the old one, which resuming brings back."""
    new, old = best.with_name("best.new"), best.with_name(OLD_BEST)
    shutil.rmtree(new, ignore_errors=True)
    write_checkpoint(new, recipe, learner, record)
    shutil.rmtree(old, ignore_errors=True)
    if best.exists():
        best.rename(old)
    new.rename(best)
    shutil.rmtree(old, ignore_errors=True)


def _check_folder(run: Path, recipe: Recipe, resume: bool, rank: int) -> None:
    run.mkdir(parents=True, exist_ok=True)
    stored = run / "recipe.yaml"
    content = yaml.safe_dump(json.loads(recipe.model_dump_json()), sort_keys=False, allow_unicode=True)
    if resume:
        if not stored.exists():
            raise ResumeError(f"{run} holds no run to go on with. Start it without --resume.")
        if stored.read_text(encoding="utf-8") != content:
            raise ResumeError(f"{stored} is not the recipe given. Resume with the recipe and overrides it began with.")
        return
    if rank > 0:
        return
    if stored_state(run) is not None:  # without one the run had not begun, and there is nothing to go on from
        raise ResumeError(f"{run} holds a run already. Use --resume to go on with it, or another folder.")
    (run / "validation.jsonl").unlink(missing_ok=True)  # of one that was interrupted before its first state
    stored.write_text(content, encoding="utf-8")


@contextmanager
def _writer(run: Path, rank: int) -> Iterator[SummaryWriter]:
    writer = SummaryWriter(str(run / "events" if rank == 0 else run / f"events-{rank}"))
    try:
        yield writer
    finally:
        writer.close()
