"""``qrag ask``: the evidence for a question, step by step."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from qrag import Client, RetrieveOptions, RetrieveOut, StepEvent, Stop
from qrag.cli.terminal import bold, complain, dim, shown
from qrag.wire.retrieval import CandidateOut, RetrieveIn
from qrag.wire.rules import ENDINGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag ask``."""
    parser.add_argument("question", nargs="?", help="- reads it from standard input; not needed with --continue")
    parser.add_argument(
        "--continue", dest="continuation", metavar="TOKEN", help="go on from the `continuation` of an answer in JSON"
    )
    parser.add_argument("--focus", metavar="TEXT", help="a sub-question on the way: this call selects for it")
    parser.add_argument("--collection", metavar="C", help="default: default")
    parser.add_argument("--document", action="append", metavar="ID", help="search only this document; may be repeated")
    parser.add_argument("--max-steps", type=int, metavar="N", help="most chunks to select (default: 6)")
    parser.add_argument("--rerank", type=int, metavar="N", help="let a cross-encoder choose among the best N")
    parser.add_argument(
        "--decompose", action="store_true", help="let the service's language model split a question that joins several"
    )
    parser.add_argument("--beam-width", type=int, metavar="N", help="1 is greedy, more plans ahead (default: 1)")
    stop = parser.add_mutually_exclusive_group()
    stop.add_argument("--step-cost", type=float, metavar="X", help="cost of a chunk; complete evidence is worth 1")
    stop.add_argument(
        "--target-recall",
        type=float,
        metavar="X",
        help="share of answerable questions to answer",
    )
    stop.add_argument("--budget", action="store_true", help="select exactly --max-steps chunks")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the answer as JSON and nothing else")
    output.add_argument("--context", action="store_true", help="print the context for a prompt and nothing else")
    parser.add_argument("--trace", action="store_true", help="also print the best candidates of each step")


def check(arguments: argparse.Namespace) -> None:
    """Raise :class:`ValueError` with one line for arguments that ask nothing, or have a value out of range."""
    if arguments.question is None and arguments.continuation is None:
        raise ValueError("give a question, or --continue TOKEN")
    stop_of(arguments)


def stop_of(arguments: argparse.Namespace) -> Stop | None:
    """The stop rule that the arguments name. Raises :class:`ValueError` with one line for a value out of range."""
    options = {"step_cost": arguments.step_cost, "target_recall": arguments.target_recall}
    given = {name: value for name, value in options.items() if value is not None}
    if arguments.budget:
        return Stop(rule="budget")
    try:
        return Stop(**given) if given else None
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from error


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Ask the question and print the evidence; always 0."""
    question = sys.stdin.buffer.read().decode("utf-8", "replace") if arguments.question == "-" else arguments.question
    options = RetrieveOptions(
        collection=arguments.collection,
        document_ids=arguments.document,
        continuation=arguments.continuation,
        focus=arguments.focus,
        max_steps=arguments.max_steps,
        beam_width=arguments.beam_width,
        rerank=arguments.rerank,
        stop=stop_of(arguments),
        trace=arguments.trace,
        decompose=arguments.decompose or None,
    )
    if arguments.json:
        _print_alone(client.retrieve(question, **options).model_dump_json(indent=2))
    elif arguments.context:
        _print_alone(client.retrieve(question, **options).context)
    else:
        for event in client.stream(question, **options):
            print(_step(event) if isinstance(event, StepEvent) else _end(event, arguments.max_steps), flush=True)
            if isinstance(event, RetrieveOut):
                for warning in event.warnings:
                    complain(shown(warning))
                if not event.chunks:
                    complain("nothing was selected. Are there documents? `qrag status` says so.")
    return 0


def _print_alone(text: str) -> None:
    """Print a text unchanged for a program, and without control characters on a terminal."""
    print(shown(text) if sys.stdout.isatty() else text)


def _step(event: StepEvent) -> str:
    chunk = event.chunk
    place = f"{chunk.document_id} [{chunk.start}:{chunk.end}]"
    if where := shown(chunk.location.words()):
        place += f"  {where}"
    title = "" if chunk.title is None else f"{bold(shown(chunk.title))}  "
    lines = [f"{bold(f'{event.step + 1}.')} {title}{dim(f'Q {event.q:.3f}  {place}')}"]
    lines += [f"   {line}" for line in shown(chunk.text).split("\n")]
    lines += _candidates("candidates", event.candidates)
    return "\n".join([*lines, ""])


def _candidates(name: str, candidates: list[CandidateOut] | None) -> list[str]:
    chunks = [f"{candidate.document_id} #{candidate.index} ({candidate.q:.3f})" for candidate in candidates or []]
    return [dim(f"   {name}: {', '.join(chunks)}")] if chunks else []


def _end(result: RetrieveOut, most: int | None) -> str:
    most = most or RetrieveIn.model_fields["max_steps"].default
    lines = _candidates("one step would have found", (result.one_step or [])[:most])
    lines.append(f"Stopped because {ENDINGS.get(result.stopped_by, result.stopped_by)}.")
    if result.sufficiency is not None:
        complete, hopeless = result.sufficiency.complete, result.sufficiency.hopeless
        lines.append(f"Probability that the evidence is complete: {complete:.0%}; that it cannot be: {hopeless:.0%}.")
    return "\n".join(lines)
