"""More bAbI questions from the stories there are: other names, and other questions about the same facts.

The published files have 800 training questions of QA3. Their stories answer many more, with support that follows
from the facts by the rules that the published questions keep to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from trainer.datasets.babi import BabiQuestion

ASKED = ("qa1", "qa2", "qa3")
"""The tasks whose questions can be derived from any story of theirs."""

PEOPLE = (
    "Mary John Sandra Daniel Bill Fred Jeff Julie Yann Jason Antoine Sumit Emily Alice Robert Laura Peter Susan Kevin "
    "Helen Martin Nancy George Karen Thomas Linda Steven Diana Oliver Sophie Edward Rachel Victor Hannah Walter Emma "
    "Brian Clara Arthur Nora"
).split()
THINGS = (
    "football apple milk book key cup hat coin lamp box pen bottle letter ring knife basket candle camera phone "
    "umbrella towel blanket bread orange banana cake wallet map ticket guitar hammer rope bucket spoon plate mirror "
    "comb pillow shirt newspaper"
).split()
PLACES = (
    "bathroom bedroom garden hallway kitchen office school park cinema basement attic garage library cellar pantry "
    "studio balcony terrace lobby gym stable barn cottage museum theatre bakery market station church hospital hotel "
    "restaurant workshop laundry nursery lounge playground warehouse courtyard greenhouse"
).split()
"""The names of the published tasks first, then others: single words, none of them used by the tasks otherwise."""

_NAME = re.compile(rf"\b(?:{'|'.join([*PEOPLE, *THINGS, *PLACES])})\b")
_MOVED = re.compile(r"(\w+) (?:went|went back|moved|journeyed|travelled) to the (\w+)\.")
_GOT = re.compile(r"(\w+) (?:got|took|grabbed|picked up) the (\w+)(?: there)?\.")
_DROPPED = re.compile(r"(\w+) (?:dropped|discarded|left|put down|let go of) the (\w+)(?: there)?\.")


def rename(item: BabiQuestion, generator: np.random.Generator) -> BabiQuestion:
    """The same question with people, things and places renamed: the same name everywhere, no two alike.

    Each name is drawn from its kind's pool; one may stay as it is. Names outside the pools stay.
    """
    text = "\n".join((*item.facts, item.question, item.answer))
    present = dict.fromkeys(_NAME.findall(text))
    names: dict[str, str] = {}
    for pool in (PEOPLE, THINGS, PLACES):
        old = [name for name in present if name in pool]
        drawn = generator.choice(len(pool), size=len(old), replace=False)
        names |= {name: pool[index] for name, index in zip(old, drawn.tolist(), strict=True)}
    *facts, question, answer = _NAME.sub(lambda match: names[match.group()], text).split("\n")
    return BabiQuestion(item.task, question, answer, tuple(facts), item.support, item.id)


def more_questions(stories: Iterable[BabiQuestion], task: str) -> list[BabiQuestion]:
    """Every question of QA1, QA2 or QA3 that can be asked at any point of the stories, in order.

    The facts of a story are used, not its question: give each story once, with all its facts. A question is left
    out where the facts do not settle its answer and its support. Raises :class:`ValueError` for another task,
    and for a fact that is no move, taking or leaving.
    """
    if task not in ASKED:
        raise ValueError(f"{task} cannot be asked about other stories: only {', '.join(ASKED)} can")
    questions: list[BabiQuestion] = []
    for item in stories:
        story = _Story()
        for line, fact in enumerate(item.facts):
            story.tell(line, fact)
            told = item.facts[: line + 1]
            for question, answer, support in story.questions(task):
                name = f"{item.id}/{task}/{line + 1}/{len(questions)}"
                questions.append(BabiQuestion(task, question, answer, told, support, name))
    return questions


class _Derived(NamedTuple):
    question: str
    answer: str
    support: tuple[int, ...]


class _Visit(NamedTuple):
    place: str
    line: int
    """The move that led there."""


@dataclass(slots=True)
class _Carry:
    """A thing since it was last taken up."""

    holder: str
    line: int
    """Where it was taken, or left once it is."""
    start: _Visit | None
    """Where the holder was then."""
    visits: list[_Visit] = field(default_factory=list)
    """Where it was carried."""
    held: bool = True

    def here(self) -> _Visit | None:
        return self.visits[-1] if self.visits else self.start


class _Story:
    """The people and things of a story, told fact by fact."""

    def __init__(self) -> None:
        self.people: dict[str, _Visit] = {}
        self.things: dict[str, _Carry] = {}

    def tell(self, line: int, fact: str) -> None:
        if match := _MOVED.fullmatch(fact):
            person, visit = match[1], _Visit(match[2], line)
            self.people[person] = visit
            for carry in self.things.values():
                if carry.held and carry.holder == person:
                    carry.visits.append(visit)
        elif match := _GOT.fullmatch(fact):
            person, thing = match.groups()
            self.things[thing] = _Carry(person, line, self.people.get(person))
        elif match := _DROPPED.fullmatch(fact):
            person, thing = match.groups()
            left = self.things.get(thing)
            if left is not None and left.held and left.holder == person:
                left.line, left.held = line, False
            else:  # somebody leaves what he does not hold: from here on nothing is known of it
                self.things.pop(thing, None)
        else:
            raise ValueError(f"{fact!r} is no move, taking or leaving of a thing: it cannot be asked about")

    def questions(self, task: str) -> Iterator[_Derived]:
        if task == "qa1":
            return self._where_is_person()
        return self._where_is_thing() if task == "qa2" else self._where_was_thing()

    def _where_is_person(self) -> Iterator[_Derived]:
        for person, visit in self.people.items():
            yield _Derived(f"Where is {person}?", visit.place, (visit.line,))

    def _where_is_thing(self) -> Iterator[_Derived]:
        for thing, carry in self.things.items():
            here = carry.here()
            if here is not None:
                yield _Derived(f"Where is the {thing}?", here.place, (carry.line, here.line))

    def _where_was_thing(self) -> Iterator[_Derived]:
        """The published rule: both places were reached since the thing was last taken up, the last visit counts.

        Support is where the thing was taken or left, the move to the later place, the move to the earlier one.
        """
        for thing, carry in self.things.items():
            last = {visit.place: index for index, visit in enumerate(carry.visits)}
            for place, index in last.items():
                before = carry.visits[index - 1]
                if index > 0 and before.place != place:
                    question = f"Where was the {thing} before the {place}?"
                    yield _Derived(question, before.place, (carry.line, carry.visits[index].line, before.line))
