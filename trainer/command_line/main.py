"""The command line: train, evaluate, compare, plot, export."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from tqdm.contrib.logging import logging_redirect_tqdm

from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder, resolve_device
from index.errors import QRagError
from trainer.errors import RecipeError, TrainerError
from trainer.evaluation.baselines import BM25, OneStep, untrained_encoder
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.playing import Player, Retriever
from trainer.evaluation.plots import completeness, learning_curves, recall_by_budget, recall_by_length
from trainer.evaluation.reports import Result, Row, fingerprint, joined, markdown, measure, read_report, write_report
from trainer.evaluation.suites import SUITES, TestSet
from trainer.learning.checkpoints import export
from trainer.learning.training import train
from trainer.recipe import read_recipe
from trainer.stopping.calibration import calibrate
from trainer.stopping.stop_reports import (
    Played,
    judge,
    play_sets,
    read_stop_report,
    stop_tables,
    unanswerable,
    write_stop_report,
)

log = logging.getLogger(__name__)

BASELINES = ("bm25", "one-step", "untrained")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 1, after one line on standard error, where it cannot be done."""
    parsed = command_line().parse_args(arguments)
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index it builds, at the level of debugging
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        with logging_redirect_tqdm():
            parsed.run(parsed)
    except (TrainerError, QRagError, OSError, ImportError) as error:
        print(f"trainer: {error}", file=sys.stderr)
        return 1
    return 0


# -- commands ---------------------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> None:
    recipe = read_recipe(arguments.recipe, _overrides(arguments.set))
    train(
        recipe,
        arguments.data,
        arguments.out,
        device=resolve_device(arguments.device),
        resume=arguments.resume,
        cache=arguments.cache,
    )


def _calibrate(arguments: argparse.Namespace) -> None:
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


def _evaluate(arguments: argparse.Namespace) -> None:
    encoder = load_encoder(arguments.checkpoint, device=arguments.device)
    player = Player(encoder, cache=arguments.cache, beam_width=arguments.beam_width)
    result = _result(arguments, arguments.name or encoder.config.name, player, encoder, arguments.beam_width)
    _publish(arguments.out, [result])


def _stops(arguments: argparse.Namespace) -> None:
    encoder = load_encoder(arguments.checkpoint, device=arguments.device)
    player = Player(encoder, cache=arguments.cache)
    played: list[Played] = []
    for one in play_sets(player, _answerable_or_not(arguments)):
        found = [trace.found_after for trace in one.traces]
        log.info("%s %s found=%d of %d", one.task, one.length, sum(at is not None for at in found), len(found))
        played.append(one)
    report = judge(
        encoder,
        played,
        name=arguments.name or encoder.config.name,
        fingerprint=fingerprint(encoder.config),
        seed=arguments.seed,
        machine=describe_machine(),
    )
    write_stop_report(arguments.out, report)
    arguments.out.with_suffix(".md").write_text(stop_tables([report]), encoding="utf-8")
    completeness(report, arguments.out.with_suffix(".png"))
    print(stop_tables([report]))


def _answerable_or_not(arguments: argparse.Namespace) -> Iterator[TestSet]:
    """The test sets, and after each whose documents are paragraphs the same without a part of the evidence."""
    for suite in arguments.suite:
        for one in SUITES[suite](arguments.data, arguments.lengths, arguments.questions, arguments.seed):
            yield one
            if suite in ("multihop", "multihop-joined", "jsonl") and not one.part:
                yield unanswerable(one, arguments.seed)


def _baselines(arguments: argparse.Namespace) -> None:
    results: list[Result] = []
    device = resolve_device(arguments.device)
    if {"one-step", "untrained"}.intersection(arguments.only):
        recipe = None if arguments.recipe is None else read_recipe(arguments.recipe)
        untrained = untrained_encoder(recipe, device)
    for name in arguments.only:
        if name == "bm25":
            results.append(_result(arguments, name, BM25(), None))
        else:
            player = (OneStep if name == "one-step" else Player)(untrained, cache=arguments.cache)
            results.append(_result(arguments, name, player, untrained))
    for label, directory in arguments.checkpoint:
        encoder = load_encoder(directory, device=arguments.device)
        results.append(_result(arguments, label, Player(encoder, cache=arguments.cache), encoder))
    _publish(arguments.out, results)


def _export(arguments: argparse.Namespace) -> None:
    export(arguments.checkpoint, arguments.destination)
    log.info("exported to %s", arguments.destination)


def _report(arguments: argparse.Namespace) -> None:
    if arguments.stops:
        table = stop_tables([read_stop_report(path) for path in arguments.files])
    else:
        table = markdown([result for path in arguments.files for result in read_report(path).results])
    if arguments.out is None:
        print(table)
    else:
        arguments.out.write_text(table, encoding="utf-8")


def _plot(arguments: argparse.Namespace) -> None:
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
        fingerprint=None if encoder is None else fingerprint(encoder.config),
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
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise RecipeError(f"--set {setting}: write name=value, as in hyperparameters.gamma=0.9")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {setting}: the value is not YAML ({error})") from None
    return found


# -- arguments --------------------------------------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """What can be said to ``python -m trainer``."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train and measure Q-RAG checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("train", help="train a checkpoint")
    command.set_defaults(run=_train)
    command.add_argument("recipe", type=Path, help="YAML file; those that come along are in trainer/recipes")
    _add_data(command)
    command.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    command.add_argument("--resume", action="store_true", help="go on where the run was interrupted")
    command.add_argument(
        "--cache", type=Path, metavar="DIR", help="embed known chunks first and keep them here for other runs"
    )
    _add_settings(command)
    _add_device(command)

    command = commands.add_parser("calibrate", help="teach a checkpoint to tell complete evidence")
    command.set_defaults(run=_calibrate)
    command.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    command.add_argument("recipe", type=Path, help="that it was trained with: its questions are played")
    _add_data(command)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the checkpoint")
    command.add_argument("--episodes", type=_positive, default=3000, metavar="N", help="to fit to; default: 3000")
    command.add_argument("--cache", type=Path, metavar="DIR", help="embeddings of known chunks are kept here")
    _add_settings(command)
    _add_device(command)

    command = commands.add_parser("evaluate", help="measure a checkpoint on a suite of test questions")
    command.set_defaults(run=_evaluate)
    command.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    command.add_argument("--name", help="to report it under; default: the checkpoint's own")
    command.add_argument(
        "--beam-width", type=_positive, default=1, metavar="N", help="plan with a beam; default: greedy"
    )
    _add_suite(command)

    command = commands.add_parser("stops", help="judge the stop rules of a calibrated checkpoint")
    command.set_defaults(run=_stops)
    command.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    command.add_argument("--name", help="to report it under; default: the checkpoint's own")
    command.add_argument(
        "--suite", nargs="+", choices=SUITES, default=["babilong", "multihop"], help="default: babilong multihop"
    )
    _add_questions(command)

    command = commands.add_parser("baselines", help="measure other ways of retrieving on the same questions")
    command.set_defaults(run=_baselines)
    command.add_argument(
        "--only", nargs="*", choices=BASELINES, default=BASELINES, help="which of the built-in ones; default: all"
    )
    command.add_argument("--recipe", type=Path, help="whose base model is used untrained; default: the packaged one")
    command.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        type=_labelled,
        metavar="LABEL=DIR",
        help="a trained checkpoint to set beside them; may be repeated",
    )
    _add_suite(command)

    command = commands.add_parser("report", help="merge results into tables: mean and spread of those of one name")
    command.set_defaults(run=_report)
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="written by evaluate or baselines")
    command.add_argument("--stops", action="store_true", help="they were written by stops")
    command.add_argument("--out", type=Path, metavar="FILE.md", help="default: standard output")

    command = commands.add_parser("plot", help="draw results and learning curves")
    command.set_defaults(run=_plot)
    command.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="results (files) or runs (folders)")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images")

    command = commands.add_parser("export", help="copy a checkpoint with both towers whole")
    command.set_defaults(run=_export)
    command.add_argument("checkpoint", type=Path)
    command.add_argument("destination", type=Path, help="a new folder")
    return parser


def _add_suite(command: argparse.ArgumentParser) -> None:
    command.add_argument("--suite", required=True, choices=SUITES)
    _add_questions(command)


def _add_questions(command: argparse.ArgumentParser) -> None:
    _add_data(command)
    command.add_argument("--lengths", nargs="+", metavar="LABEL", help="such as 1K 128K; default: all of the suite")
    command.add_argument("--questions", type=_positive, metavar="N", help="at most so many of each task and length")
    command.add_argument("--seed", type=int, default=0, help="of where the facts are hidden; default: 0")
    command.add_argument("--cache", type=Path, metavar="DIR", help="keep embeddings of books here for the next time")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="table and plots are put beside it"
    )
    _add_device(command)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the data (suite jsonl: the file)"
    )


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="replace a field of the recipe; may be repeated",
    )


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def _labelled(text: str) -> tuple[str, Path]:
    label, equals, directory = text.partition("=")
    if not (label and equals and directory):
        raise argparse.ArgumentTypeError(f"{text} is not LABEL=DIR")
    return label, Path(directory)
