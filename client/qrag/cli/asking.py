"""``qrag ask``: the evidence for a question, step by step."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from qrag import Client, RetrieveOptions, RetrieveOut, StepEvent, Stop
from qrag.cli.terminal import bold, complain, dim, shown
from qrag.wire.retrieval import CandidateOut
from qrag.wire.rules import StoppedBy

_ENDINGS: dict[StoppedBy, str] = {
    "budget": "as many chunks as asked for are selected",
    "threshold": "another chunk would not be worth it",
    "action": "another chunk would not be worth it",
    "sufficiency": "another chunk would not be worth it",
    "sufficient": "the evidence is most likely complete",
    "hopeless": "the rest of the evidence is most likely not there",
    "context": "the next chunk does not fit into the context",
    "exhausted": "no chunk is left",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("question", help="- reads it from standard input")
    parser.add_argument("--collection", metavar="C", help="default: default")
    parser.add_argument("--document", action="append", metavar="ID", help="search only this one; may be repeated")
    parser.add_argument("--max-steps", type=int, metavar="N", help="most chunks to select (default: 6)")
    parser.add_argument("--beam-width", type=int, metavar="N", help="1 is greedy, more plans ahead (default: 1)")
    stop = parser.add_mutually_exclusive_group()
    stop.add_argument("--step-cost", type=float, metavar="X", help="what a chunk costs, where all the evidence is 1")
    stop.add_argument("--target-recall", type=float, metavar="X", help="how much of what can be found is wanted")
    stop.add_argument("--budget", action="store_true", help="select exactly --max-steps chunks")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the answer as JSON and nothing else")
    output.add_argument("--context", action="store_true", help="print the context for a prompt and nothing else")
    parser.add_argument("--trace", action="store_true", help="also the best candidates of each step")


def stop_of(arguments: argparse.Namespace) -> Stop | None:
    """The rule that is wanted. Raises :class:`ValueError` with one line for a value out of range."""
    wishes = {"step_cost": arguments.step_cost, "target_recall": arguments.target_recall}
    given = {name: value for name, value in wishes.items() if value is not None}
    if arguments.budget:
        return Stop(rule="budget")
    try:
        return Stop(**given) if given else None
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from error


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Ask, and print the evidence."""
    question = sys.stdin.buffer.read().decode("utf-8", "replace") if arguments.question == "-" else arguments.question
    options = RetrieveOptions(
        collection=arguments.collection,
        document_ids=arguments.document,
        max_steps=arguments.max_steps,
        beam_width=arguments.beam_width,
        stop=stop_of(arguments),
        trace=arguments.trace,
    )
    if arguments.json:
        _print_alone(client.retrieve(question, **options).model_dump_json(indent=2))
    elif arguments.context:
        _print_alone(client.retrieve(question, **options).context)
    else:
        for event in client.stream(question, **options):
            print(_step(event) if isinstance(event, StepEvent) else _end(event), flush=True)
            if isinstance(event, RetrieveOut) and not event.chunks:
                complain("nothing was selected. Are there documents? `qrag status` says so.")
    return 0


def _print_alone(text: str) -> None:
    """For a program as it is; a terminal is not to be written to by a document."""
    print(shown(text) if sys.stdout.isatty() else text)


def _step(event: StepEvent) -> str:
    chunk = event.chunk
    place = f"{chunk.document_id} [{chunk.start}:{chunk.end}]"
    title = "" if chunk.title is None else f"{bold(shown(chunk.title))}  "
    lines = [f"{bold(f'{event.step + 1}.')} {title}{dim(f'Q {event.q:.3f}  {place}')}"]
    lines += [f"   {line}" for line in shown(chunk.text).split("\n")]
    lines += _candidates("candidates", event.candidates)
    return "\n".join([*lines, ""])


def _candidates(name: str, candidates: list[CandidateOut] | None) -> list[str]:
    found = [f"{each.document_id} #{each.index} ({each.q:.3f})" for each in candidates or []]
    return [dim(f"   {name}: {', '.join(found)}")] if found else []


def _end(result: RetrieveOut) -> str:
    lines = _candidates("one step would have found", result.one_step)
    lines.append(f"Stopped because {_ENDINGS[result.stopped_by]}.")
    if result.sufficiency is not None:
        complete, hopeless = result.sufficiency.complete, result.sufficiency.hopeless
        lines.append(f"Probability that the evidence is complete: {complete:.0%}; that it cannot be: {hopeless:.0%}.")
    return "\n".join(lines)
