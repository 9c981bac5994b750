"""One adaptation: chunks from the service, questions, training, a report, and the checkpoint where it wins.

A run's folder holds everything that was made, so an interrupted run goes on where it was when it is started again:
``plan.json``, ``collection.jsonl``, ``reader.sqlite`` (what the reader said), ``data/`` (the questions), ``training/``
(a run of the trainer), ``checkpoint/`` (the result), ``report.json``, ``report.md`` and plots.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from index.encoders.checkpoint import CheckpointConfig, PackedTower, read_config, tower_directory
from index.encoders.cross_encoder import CrossEncoder
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from qrag.client.blocking import Client
from trainer.adapting.collection import Collection, fetched
from trainer.adapting.confirming import confirmed
from trainer.adapting.drafts import draft
from trainer.adapting.files import HELD_OUT, TRAINING, split, write_set
from trainer.adapting.own import from_feedback, judged_pairs, read_pairs
from trainer.adapting.plan import Plan, held, keep_to
from trainer.bases.models import reranker_directory
from trainer.datasets.evidence import read_evidence
from trainer.datasets.question import Question
from trainer.errors import RecipeError
from trainer.evaluation.baselines import BM25, Hybrid, OneStep, untrained_encoder
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.paired import Difference, paired_difference
from trainer.evaluation.playing import Player, Retriever
from trainer.evaluation.plots import learning_curves, recall_by_budget
from trainer.evaluation.reports import Result, markdown, measure, write_report
from trainer.evaluation.suites.test_sets import listed
from trainer.hyperparameters import Hyperparameters
from trainer.judging.judge import Judge
from trainer.learning.checkpoints import average, pack
from trainer.learning.state import stored_state
from trainer.learning.training import train
from trainer.readers.protocol import Reader
from trainer.recipe import DatasetTask, Recipe
from trainer.stopping.calibration import calibrate

log = logging.getLogger(__name__)

FEWEST_QUESTIONS = 40
"""Fewer confirmed questions teach and prove nothing."""

VALIDATED = 20
"""Questions of the training part by which the best moment of the training is chosen."""

FEWEST_TRAINED = VALIDATED + 5
"""Fewest questions of the training part."""

AVERAGED = 0.5
"""Share of the trained weights in the result; the rest is the present checkpoint's, which knows more than this."""

PRESENT, ADAPTED = "present", "adapted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an adaptation ended."""

    checkpoint: Path
    difference: Difference
    """How much more evidence the new checkpoint finds among five than the present one, on what was held out."""
    best_peer: Difference
    """The same against the best of the peers."""

    @property
    def wins(self) -> bool:
        """Whether it finds more than the present one, which is not chance, and not significantly less than a peer."""
        return self.difference.low > 0 and self.best_peer.high >= 0


def adapt(
    client: Client, collection: str | None, reader: Reader, plan: Plan, run: Path, device: torch.device
) -> Outcome:
    """Adapt the checkpoint to the collection, all documents without one.

    Raises :class:`~trainer.errors.TrainerError` where there is too little to learn from or ``run`` is of another plan,
    and what client and reader raise; what was done until then is kept in ``run``.
    """
    recipe = _recipe(plan, load_encoder(plan.start, device="cpu"), read_config(plan.start))
    if plan.reranker is not None:
        CrossEncoder(reranker_directory(plan.reranker), torch.device("cpu"))  # said before an hour of reading
    with held(run):
        keep_to(plan, collection, reader, run)
        return _adapted(client, collection, reader, plan, recipe, run, device)


def _adapted(
    client: Client,
    collection: str | None,
    reader: Reader,
    plan: Plan,
    recipe: Recipe,
    run: Path,
    device: torch.device,
) -> Outcome:
    """What of the plan is not done yet, and the report."""
    texts = fetched(client, collection, run / "collection.jsonl", plan.seed)
    data = run / "data"
    if not (data / HELD_OUT).exists():
        questions = _questions(client, collection, reader, texts, plan, run, device)
        if len(questions) < FEWEST_QUESTIONS:
            raise RecipeError(
                f"{len(questions)} questions were confirmed, and {FEWEST_QUESTIONS} are needed. Ask about more chunks "
                "(--singles), take a larger reader, or bring questions of your own (--questions)."
            )
        training, held_out = split(questions, plan.held_out, plan.seed)
        log.info("questions training=%d held_out=%d", len(training), len(held_out))
        if len(training) < FEWEST_TRAINED:
            raise RecipeError(
                f"Of {len(questions)} questions {len(training)} need other chunks than the {len(held_out)} that are "
                f"measured, and {FEWEST_TRAINED} are needed to train on. Ask about more chunks "
                "(--singles), or bring more questions of your own (--questions)."
            )
        write_set(data, texts, training, held_out)
    if not (run / "checkpoint").exists():
        _trained(recipe, plan, data, run, device)
    return _compared(plan, data, run, device)


def _questions(
    client: Client,
    collection: str | None,
    reader: Reader,
    texts: Collection,
    plan: Plan,
    run: Path,
    device: torch.device,
) -> Sequence[Question]:
    """Users' own questions where there are some, else those that the reader asks and confirms."""
    judge, cache = Judge(reader, "joint"), run / "embeddings"
    if plan.questions is not None or plan.feedback:
        own: list[Question] = []
        if plan.feedback:
            own += from_feedback(client.feedback(collection=collection), texts)
        if plan.questions is not None:
            own += judged_pairs(judge, read_pairs(plan.questions), texts, device, cache)
        return own
    drafts = list(draft(reader, texts.chunks, plan.singles, plan.pairs, plan.seed))
    log.info("drafts=%d of chunks=%d", len(drafts), plan.singles + plan.pairs)
    return list(confirmed(judge, drafts, texts, device, cache))


def _recipe(plan: Plan, start: Encoder, config: CheckpointConfig) -> Recipe:
    """The recipe that goes on from the present checkpoint with the questions alone.

    A packed checkpoint holds its base model; of another one everything is trained, so its own towers are the base.
    """
    packed, stops = isinstance(config.action, PackedTower), start.stopping.action is not None
    return Recipe(
        name=plan.name,
        base=None if packed else str(tower_directory(plan.start, config.action)),
        start=str(plan.start),
        seed=plan.seed,
        pooling=config.pooling,
        normalize=config.normalize,
        separator=config.separator,
        state_prefix=config.state_prefix,
        action_prefix=config.action_prefix,
        state_tokens=config.state_tokens,
        action_tokens=config.action_tokens,
        headings=config.headings,
        positions=config.positions,
        lexical=start.heads.terms is not None,
        surroundings=start.heads.surroundings is not None,
        tasks=(
            DatasetTask(
                kind="evidence",
                path=TRAINING,
                validation=VALIDATED,
                mine=True,
                unanswerable=0.1 if stops else 0.0,
                distil=plan.reranker is not None,
            ),
        ),
        reranker=plan.reranker,
        validate_every=max(1, plan.transitions // 3),
        hyperparameters=Hyperparameters(
            transitions=plan.transitions,
            environments=24,
            warm_start=1.0,
            stop=stops,
            frozen_layers=3 if packed else 0,
            learning_rate=5e-5,
            head_learning_rate=5e-4,
            alpha_start=0.04,
            alpha_end=0.03,
        ),
    )


def _trained(recipe: Recipe, plan: Plan, data: Path, run: Path, device: torch.device) -> None:
    """Train, average with the present checkpoint, calibrate and pack; each step whole or not at all."""
    training, cache = run / "training", run / "embeddings"
    train(recipe, data, training, device=device, cache=cache, resume=stored_state(training) is not None)
    averaged, calibrated = run / "averaged", run / "calibrated"
    for folder in (averaged, calibrated):
        shutil.rmtree(folder, ignore_errors=True)
    average(plan.start, training / "best", AVERAGED, averaged)
    calibrate(averaged, recipe, data, calibrated, episodes=plan.episodes, device=str(device), cache=cache)
    unfinished = run / "checkpoint.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    pack(calibrated, unfinished)
    unfinished.rename(run / "checkpoint")


def _compared(plan: Plan, data: Path, run: Path, device: torch.device) -> Outcome:
    """The report on the held-out questions: the peers, the present checkpoint and the new one."""
    test_set = listed(list(read_evidence(data / HELD_OUT)))
    cache = run / "embeddings"
    nearest = OneStep(untrained_encoder(None, device), cache=cache)
    present, adapted = (load_encoder(folder, device=str(device)) for folder in (plan.start, run / "checkpoint"))
    ways: dict[str, tuple[Retriever, str | None]] = {
        "bm25": (BM25(), None),
        "one-step": (nearest, nearest.encoder.config.fingerprint),
        "hybrid": (Hybrid(BM25(), nearest), nearest.encoder.config.fingerprint),
        PRESENT: (Player(present, cache=cache), present.config.fingerprint),
        ADAPTED: (Player(adapted, cache=cache), adapted.config.fingerprint),
    }
    results = [
        Result(
            name=name,
            fingerprint=checksum,
            suite="evidence",
            seed=plan.seed,
            machine=describe_machine(),
            rows=(measure(retriever, test_set),),
        )
        for name, (retriever, checksum) in ways.items()
    ]
    shares = {result.name: result.rows[0].shares for result in results}
    peers = [name for name in shares if name not in (PRESENT, ADAPTED)]
    best = max(peers, key=lambda name: sum(shares[name]))
    outcome = Outcome(
        run / "checkpoint",
        paired_difference(shares[ADAPTED], shares[PRESENT]),
        paired_difference(shares[ADAPTED], shares[best]),
    )
    write_report(run / "report.json", results)
    (run / "report.md").write_text(_report(outcome, best, results), encoding="utf-8")
    for result in results:
        recall_by_budget(result, run / f"recall-{result.name}.png")
    learning_curves([run / "training"], run / "learning-curves.png")
    return outcome


def _report(outcome: Outcome, best: str, results: Sequence[Result]) -> str:
    verdict = "finds more" if outcome.wins else "does **not** find enough more to take the place of the present one"
    questions = results[0].rows[0].questions
    return (
        f"# Adaptation\n\nThe adapted checkpoint {verdict}: evidence share among five "
        f"{_shown(outcome.difference)} against the present one, {_shown(outcome.best_peer)} against {best}, on "
        f"{questions} held-out questions of the same collection.\n\n{markdown(results)}"
    )


def _shown(difference: Difference) -> str:
    return f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
