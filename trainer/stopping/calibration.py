"""Teaches a trained checkpoint to say what its states are, and calibrates the stop rules.

The sufficiency head is fitted, by cross-entropy on exact labels, to episodes over the questions that the towers were
trained on and, with more weight, over the held-out ones, where they err as they will err in use. The same held-out
episodes give each rule its curve.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from index.arrays import Float32Array, Float64Array
from index.encoders.checkpoint import CheckpointConfig, read_config
from index.encoders.loading import load_encoder
from index.encoders.writing import write_config, write_stopping
from index.episodes.calibration import Calibration, Curve, CurvePoint, for_cost
from index.episodes.head import SUMMARY, Head, features
from index.episodes.stopping import Stopping
from index.search.function import QFunction
from qrag.wire.rules import RULES, Rule
from trainer.datasets.question import Question
from trainer.errors import RecipeError
from trainer.evaluation.playing import Player
from trainer.recipe import BabiTask, DatasetTask, Recipe, Task
from trainer.stopping.stops import point, stop_at
from trainer.stopping.traces import Trace, scores, trace
from trainer.tasks.babi import BUDGETS
from trainer.tasks.mixture import Mixture, build_mixture

log = logging.getLogger(__name__)

BUDGET = 6
"""Most selections of the episodes that are fitted, as many as the service's default: what they have not found then
counts as hopeless."""

REMOVED = 0.25
"""Share of the questions of which something is taken out of the candidates: enough to learn from."""

ELSEWHERE = 0.5
"""Share of these that are asked of what another question is about instead, as far as there is one of the same task."""

MISSING = 0.05
"""What these weigh among all: how often evidence is taken to be missing in use. Where a state does not show it, as it
does not among paragraphs, `complete` is lower by this share. Of .25, .1, .05 and 0 this was the best on held-out
questions, by cross-entropy and by calibration error."""

HARDLY_ANY = 1e-12
"""Share of the questions from which a task takes evidence, where it took more in the training: with none, the questions
that have no answer by themselves would be left out."""

LONGEST = 5000
"""Sentences of the longest documents that stories are hidden in, and of the longest stretches of books."""

FOLDS = 4
"""Parts of the held-out questions, each scored by what was fitted to the others."""

FEWEST_HELD_OUT = 2
"""Held-out questions without which there is nothing to fit to."""

STEP_COST = 0.05
"""The cost of a chunk for requests that name none: twenty chunks are as bad as a missing fact."""

CURVE_POINTS = 100

RIDGE = 1e-4
"""The ridge of the regression for STOP, as a share of the rows; the coordinates of a state vary by some 1/384."""

HELD_OUT = 3.0
"""Weight of a held-out question beside one of the training: the towers err on it as they will err in use."""

DIRECTIONS = 12
"""Principal directions of the state embeddings that the head sees."""

HIDDEN = 64
EPOCHS = 60
BATCH = 512
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True)
class Rows:
    """States with what they are."""

    features: torch.Tensor
    """Shape ``[rows, d + SUMMARY]``."""
    labels: torch.Tensor
    """Shape ``[rows]``."""
    weights: torch.Tensor
    """Shape ``[rows]``: see :func:`weights`."""


def calibrate(
    checkpoint: Path, recipe: Recipe, data: Path, out: Path, *, episodes: int, device: str, cache: Path | None
) -> None:
    """Write the checkpoint with its head and curves to the folder ``out``.

    Raises :class:`~trainer.errors.RecipeError` where that exists already.
    """
    if out.exists():
        raise RecipeError(f"{out} exists already. Calibrate into a new folder.")
    out.parent.mkdir(parents=True, exist_ok=True)  # what cannot be made is noticed before the episodes are played
    encoder = load_encoder(checkpoint, device=device)
    mixture = build_mixture(for_calibration(recipe), data)
    if len(mixture.validation) < FEWEST_HELD_OUT:
        raise RecipeError(
            f"Calibrating takes {FEWEST_HELD_OUT} held-out questions, and hundreds to be of use: each is judged by "
            f"what was fitted to others. The recipe has {len(mixture.validation)}: raise `validation`."
        )
    player = Player(encoder, cache=cache)
    for texts in mixture.known_chunks():
        player.know(texts)
    generator = np.random.default_rng(recipe.seed)
    log.info("playing %d episodes over questions of the training", episodes)
    drawn = list(with_removed(mixture, mixture.draw(episodes, generator), generator))
    training = play_mixture(player, drawn)
    log.info("playing the held-out questions")
    held_out = play_mixture(player, mixture.validation)
    some = [question for question in mixture.validation if generator.random() < REMOVED]
    removed = play_mixture(player, [deprived(mixture, question, mixture.validation, generator) for question in some])
    config = read_config(checkpoint)
    trained = encoder.stopping.action if config.stopping is not None and not config.stopping.fitted_action else None
    stopping, calibration = fit(encoder.function, trained, training, held_out, removed)
    with TemporaryDirectory(dir=out.parent) as temporary:  # whole or not at all
        new = Path(temporary) / "checkpoint"
        shutil.copytree(checkpoint, new)
        source = write_stopping(new, stopping, calibration, fitted_action=trained is None)
        write_config(new, CheckpointConfig.model_validate({**dict(config), "stopping": source}))
        new.rename(out)
    for rule, points in calibration.curves.items():
        chosen = for_cost(points, calibration.step_cost)
        log.info(
            "%s%s threshold=%.3f recall=%.3f chunks=%.2f",
            rule,
            " (default)" if rule == calibration.default_rule else "",
            chosen.threshold,
            chosen.recall,
            chosen.chunks,
        )


def fit(
    function: QFunction,
    action: Float64Array | None,
    training: Sequence[Trace],
    held_out: Sequence[Trace],
    removed: Sequence[Trace],
) -> tuple[Stopping, Calibration]:
    """The head and the curves; the default is the rule that gains most at the default cost.

    ``action`` is the STOP that was trained; none: it is fitted too. What scores a held-out question for the curves was
    fitted without it.
    """
    values: dict[Rule, list[Float32Array]] = {rule: [np.empty(0, dtype=np.float32)] * len(held_out) for rule in RULES}
    for fold in range(FOLDS):
        others = [trace for number, trace in enumerate(held_out) if number % FOLDS != fold]
        fitted = fit_stopping(function, action, training, [*others, *removed])
        for rule in RULES:
            values[rule][fold::FOLDS] = scores(held_out[fold::FOLDS], fitted, rule, function)
    curves = {rule: curve(held_out, values[rule]) for rule in RULES}

    def gain(rule: Rule) -> float:
        best = for_cost(curves[rule], STEP_COST)
        return best.recall - STEP_COST * best.chunks

    calibration = Calibration(curves=curves, budget=BUDGET, default_rule=max(RULES, key=gain), step_cost=STEP_COST)
    return fit_stopping(function, action, training, [*held_out, *removed]), calibration


def fit_stopping(
    function: QFunction, action: Float64Array | None, known: Sequence[Trace], unknown: Sequence[Trace]
) -> Stopping:
    """STOP, unless it is given, and the head."""
    stopping = Stopping(action, None)
    if action is None:
        stopping = Stopping(
            fit_action(joined(rows(stopping, function, known), rows(stopping, function, unknown)), function), None
        )
    return replace(stopping, head=fit_head(joined(rows(stopping, function, known), rows(stopping, function, unknown))))


# -- questions --------------------------------------------------------------------------------------------------------


def for_calibration(recipe: Recipe) -> Recipe:
    """The recipe with documents of all lengths, stories and what stands in books: among more chunks the largest Q of
    those that are worth nothing is larger. What evidence is taken out of is decided here alone, see :data:`REMOVED`."""

    def changed(task: Task) -> Task:
        if isinstance(task, BabiTask):
            lengths = (task.sentences[0], max(LONGEST, task.sentences[1]))
            return task.model_copy(update={"sentences": lengths, "spread": "log"})
        if isinstance(task, DatasetTask):
            longer = (task.stretch[0], max(LONGEST, task.stretch[1]))
            return task.model_copy(update={"stretch": longer, "unanswerable": min(task.unanswerable, HARDLY_ANY)})
        return task

    return recipe.model_copy(update={"tasks": tuple(changed(task) for task in recipe.tasks)})


def play_mixture(player: Player, questions: Sequence[Question]) -> list[Trace]:
    """Traces of the questions, embedding what is needed; those with no chunk left are not played."""
    questions = [question for question in questions if question.chunks]
    return trace(player.encoder, questions, player.vectors(questions), BUDGET)


def with_removed(mixture: Mixture, questions: Sequence[Question], generator: np.random.Generator) -> Iterator[Question]:
    """The questions, a share of them without the chunks that would answer them."""
    for question in questions:
        yield deprived(mixture, question, questions, generator) if generator.random() < REMOVED else question


def deprived(
    mixture: Mixture, question: Question, questions: Sequence[Question], generator: np.random.Generator
) -> Question:
    """The question without one chunk of its support, or asked of what another of these ``questions`` is about.

    A story without one fact is evidence for something else, so all of it is taken out: only the text it was hidden in
    is left.
    """
    if not question.support:
        return question
    if question.task in BUDGETS:
        facts = [place for place, chunk in enumerate(question.chunks) if chunk not in mixture.background]
        return question.without(facts)
    evidence = {question.chunks[place] for place in question.support}
    others = [other for other in questions if other.task == question.task and evidence.isdisjoint(other.chunks)]
    if others and generator.random() < ELSEWHERE:
        return asked_elsewhere(question, others[int(generator.integers(len(others)))])
    return question.without([int(generator.choice(sorted(question.support)))])


def asked_elsewhere(question: Question, other: Question) -> Question:
    """The question, asked of what another one is about: nothing there answers it."""
    return replace(
        question,
        chunks=other.chunks,
        counts=other.counts,
        support=frozenset(),
        removed=question.removed + question.needed,
        facts=None,
        enough=None,
    )


# -- the head ---------------------------------------------------------------------------------------------------------


def rows(stopping: Stopping, function: QFunction, traces: Sequence[Trace]) -> Rows:
    """What a head reads of each moment of the traces."""
    moments = [moment for trace in traces for moment in trace.moments]
    inputs = np.stack([features(moment, stopping.stop_value(moment.state, function)) for moment in moments])
    labels = [trace.label(taken) for trace in traces for taken in range(len(trace.moments))]
    return Rows(torch.from_numpy(inputs).float(), torch.tensor(labels), torch.from_numpy(weights(traces)).float())


def weights(traces: Sequence[Trace]) -> Float32Array:
    """The weight of each moment: each kind of task weighs the same, and in a kind each episode, see :func:`shares`."""
    moments = np.array([len(trace.moments) for trace in traces])
    repeated = np.repeat(shares(traces) / moments, moments)
    scaled: Float32Array = (repeated * len(repeated) / repeated.sum()).astype(np.float32)
    return scaled


def shares(traces: Sequence[Trace]) -> Float64Array:
    """The share of each trace: each kind of task weighs the same, those that lack evidence :data:`MISSING` of it.

    RULER's eight variants are one kind.
    """
    kinds = [("niah" if trace.task.startswith("niah_") else trace.task, trace.removed > 0) for trace in traces]
    counts = Counter(kinds)
    return np.array([(MISSING if lacking else 1 - MISSING) / counts[kind, lacking] for kind, lacking in kinds])


def joined(known: Rows, unknown: Rows) -> Rows:
    """Rows of both, those of questions that the towers do not know weighing :data:`HELD_OUT` times as much."""
    return Rows(
        torch.cat((known.features, unknown.features)),
        torch.cat((known.labels, unknown.labels)),
        torch.cat((known.weights, HELD_OUT * unknown.weights)),
    )


def fit_action(rows: Rows, function: QFunction) -> Float64Array:
    """STOP for towers that were trained without: the embedding whose Q is nearest to 1 in complete states and to 0
    elsewhere, by ridge regression; shape ``[d]``."""
    states = rows.features[:, :-SUMMARY].double()
    weights = rows.weights.double()[:, None]
    products = ((rows.labels == 0).double() - function.b) / function.w
    square = states.T @ (weights * states) + RIDGE * weights.sum() * torch.eye(states.shape[1], dtype=torch.float64)
    action: Float64Array = torch.linalg.solve(square, states.T @ (weights * products[:, None]))[:, 0].numpy()
    return action


def fit_head(rows: Rows) -> Head:
    """A head trained by cross-entropy.

    It sees the principal directions of the states alone: with all of their coordinates it would know the questions by
    heart, and be sure of itself on others.
    """
    torch.manual_seed(0)
    dimension = rows.features.shape[1] - SUMMARY
    states = rows.features[:, :dimension]
    kept = min(DIRECTIONS, dimension)
    directions = torch.pca_lowrank(states, q=kept, niter=4)[2]
    # What stands beside the state is read as it is.
    view = torch.block_diag(directions, torch.eye(SUMMARY)).double()  # type: ignore[no-untyped-call]
    seen = rows.features.double() @ view
    mean, deviation = seen.mean(0), seen.std(0).clamp(min=1e-3)
    inputs = ((seen - mean) / deviation).float()
    first, last = torch.nn.Linear(inputs.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 3)
    model = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Dropout(0.2), last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3 * LEARNING_RATE, total_steps=EPOCHS * -(-len(inputs) // BATCH)
    )
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(inputs)), BATCH):
            losses = torch.nn.functional.cross_entropy(model(inputs[batch]), rows.labels[batch], reduction="none")
            optimizer.zero_grad()
            (losses * rows.weights[batch]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    weight = first.weight.detach().double() / deviation  # the head reads features as they are
    bias = first.bias.detach().double() - weight @ mean
    return Head(
        (weight @ view.T).numpy(),
        bias.numpy(),
        last.weight.detach().double().numpy(),
        last.bias.detach().double().numpy(),
    )


# -- the curves -------------------------------------------------------------------------------------------------------


def curve(traces: Sequence[Trace], scores: Sequence[Float32Array]) -> Curve:
    """What thresholds between the scores that occur bring on the traces, each kind of task weighing the same."""
    seen = np.concatenate(scores)
    seen = seen[np.isfinite(seen)]
    thresholds = np.unique(np.quantile(seen, np.linspace(0, 1, CURVE_POINTS)))
    weights = shares(traces)
    points = []
    for threshold in thresholds.tolist():
        reached = point(traces, stop_at(traces, scores, threshold), weights)
        points.append(CurvePoint(threshold=threshold, recall=reached.recall, chunks=reached.chunks))
    return tuple(points)
