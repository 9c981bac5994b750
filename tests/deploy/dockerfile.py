"""The Dockerfile, read."""

from __future__ import annotations

import re
from typing import NamedTuple

FINAL_STAGES = ("cpu", "gpu")


class Instruction(NamedTuple):
    name: str
    flags: list[str]
    value: str


class Stage(NamedTuple):
    name: str
    parent: str
    instructions: list[Instruction]


def read_dockerfile(text: str) -> dict[str, Stage]:
    """The stages by name. hadolint checks the grammar; this only has to split a file that is known to be valid."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if not line.strip():
            continue
        name, rest = line.split(maxsplit=1)
        words = rest.split()
        flags = [word for i, word in enumerate(words) if all(w.startswith("--") for w in words[: i + 1])]
        if name == "HEALTHCHECK":
            rest = rest[rest.index("CMD") + len("CMD") :].strip()
        elif flags:
            rest = " ".join(words[len(flags) :])
        if name == "FROM":
            parent, _, stage = rest.partition(" AS ")
            stages[stage] = Stage(stage, parent, [])
        else:
            next(reversed(stages.values())).instructions.append(Instruction(name, flags, rest))
    return stages


def effective(stages: dict[str, Stage], stage: str) -> list[Instruction]:
    """A stage's instructions after those it inherits."""
    parent = stages[stage].parent
    return (effective(stages, parent) if parent in stages else []) + stages[stage].instructions


def last(stages: dict[str, Stage], stage: str, name: str) -> str:
    """The value of an instruction of which the last one counts."""
    return [i.value for i in effective(stages, stage) if i.name == name][-1]


def environment(stages: dict[str, Stage], stage: str) -> dict[str, str]:
    values = " ".join(i.value for i in effective(stages, stage) if i.name == "ENV")
    return dict(word.split("=", 1) for word in values.split())
