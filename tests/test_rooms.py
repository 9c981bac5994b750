"""The house is as docs/architecture.md says: imports lead down, rooms are small, and each package names its rooms.

Imports under ``TYPE_CHECKING`` count too: who reads a module has to know what it names.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "qrag": ROOT / "client" / "qrag",
    "index": ROOT / "index",
    "service": ROOT / "service",
    "trainer": ROOT / "trainer",
}

FLOORS: dict[str, list[set[str]]] = {
    "qrag": [{"wire"}, {"client"}, {"__init__"}, {"evaluation", "integrations"}, {"cli"}],
    "index": [
        {"__init__", "arrays", "errors", "chunking"},
        {"search"},
        {"episodes"},
        {"encoders"},
        {"storage"},
        {"indexing"},
    ],
    "service": [
        {"__init__", "errors", "host_names", "settings", "keys", "signing"},
        {"observing"},
        {"thinking"},
        {"language_model"},
        {"engine"},
        {"services"},
        {"http"},
        {"retrieval"},
        {"intake"},
        {"answering", "openai"},
        {"mcp"},
        {"openapi"},
        {"routes"},
        {"app"},
        {"__main__"},
    ],
    "trainer": [
        {"__init__", "errors", "hyperparameters", "datasets", "recipe", "bases"},
        {"tasks", "readers"},
        {"evaluation"},
        {"judging", "answering"},
        {"learning", "stopping"},
        {"adapting"},
        {"command_line"},
        {"__main__"},
    ],
}
"""The rooms of each package, and modules beside them, from the ground floor up; a room imports from its own floor and
those below."""

MAY_IMPORT = {
    "qrag": (),
    "index": ("qrag.wire",),
    "service": ("qrag.wire", "qrag.client", "qrag.evaluation", "index"),
    "trainer": ("qrag.wire", "qrag.client", "index"),
}
"""What each package may import from the others."""

COMMAND_LINES = ("qrag.cli", "trainer.command_line", "trainer.__main__", "service.__main__")

MOST_MODULES = 13
MOST_LINES = 400

LEAST_WORDS = 8
"""Words of a docstring that says what a package is for."""


def _name(package: str, path: Path) -> str:
    parts = (package, *path.relative_to(PACKAGES[package]).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(package, path): path for package, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))}


def _imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, as far as they are modules of ours."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            module = name if name in MODULES else name.rpartition(".")[0]
            if module in MODULES:
                yield module


@cache
def _imports() -> dict[str, set[str]]:
    """What each module imports; read when it is asked, for every process of a run collects these tests."""
    return {name: set(_imported(path)) - {name} for name, path in MODULES.items()}


def _below(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def _circles(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """The strongly connected parts of more than one node."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        reached[start], waiting = set(), [start]
        while waiting:
            for node in graph.get(waiting.pop(), ()):
                if node not in reached[start]:
                    reached[start].add(node)
                    waiting.append(node)
    groups = {
        frozenset(node for node in nodes if start in reached.get(node, ()))
        for start, nodes in reached.items()
        if start in nodes
    }
    return sorted(" <-> ".join(sorted(group)) for group in groups)


def test_no_package_imports_what_it_must_not_know() -> None:
    offences = [
        f"{module} imports {name}"
        for module, names in _imports().items()
        for name in sorted(names)
        if (package := module.partition(".")[0]) != name.partition(".")[0]
        and not any(_below(name, allowed) for allowed in MAY_IMPORT[package])
    ]
    assert not offences, "\n".join(offences)


def test_nobody_imports_a_command_line() -> None:
    benchmarks = {f"benchmarks.{path.stem}": set(_imported(path)) for path in (ROOT / "benchmarks").glob("*.py")}
    offences = [
        f"{module} imports {name}"
        for module, names in (_imports() | benchmarks).items()
        for name in sorted(names)
        if any(_below(name, line) for line in COMMAND_LINES) and not any(_below(module, line) for line in COMMAND_LINES)
    ]
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_lead_down(package: str) -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}
    modules = [module for module in MODULES if _below(module, package)]
    offences = [f"{module} is in a room without a floor" for module in modules if _room(module) not in floor]
    offences += [
        f"{module} imports {name}, which is above it"
        for module in modules
        for name in sorted(_imports()[module])
        if _below(name, package) and floor.get(_room(name), 0) > floor.get(_room(module), len(floor))
    ]
    assert not offences, "\n".join(offences)


def test_modules_import_in_no_circle() -> None:
    offences = _circles(_imports())
    assert not offences, "\n".join(offences)


def test_rooms_import_in_no_circle() -> None:
    """The modules and folders directly in each folder."""
    graphs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for module, names in _imports().items():
        for name in names:
            ours, theirs = module.split("."), name.split(".")
            shared = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            if shared is not None:  # neither is the package of the other
                folder = ".".join(ours[:shared])
                graphs[folder][".".join(ours[: shared + 1])].add(".".join(theirs[: shared + 1]))
    offences = [circle for graph in graphs.values() for circle in _circles(graph)]
    assert not offences, "\n".join(offences)


def test_no_folder_holds_too_many_modules() -> None:
    counts: dict[Path, int] = defaultdict(int)
    for path in MODULES.values():
        counts[path.parent] += path.name != "__init__.py"
    offences = [f"{folder.relative_to(ROOT)}: {count}" for folder, count in counts.items() if count > MOST_MODULES]
    assert not offences, "\n".join(offences)


def test_no_module_is_too_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    offences = [f"{name}: {length} lines" for name, length in lengths.items() if length > MOST_LINES]
    assert not offences, "\n".join(offences)


def test_each_package_names_its_rooms() -> None:
    offences = []
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            files = (file.relative_to(path.parent).parts for file in path.parent.rglob("*") if file.is_file())
            rooms = {parts[0] for parts in files if len(parts) > 1 and "__pycache__" not in parts}
            offences += [
                f"{name} does not name {room}" for room in sorted(rooms) if not re.search(rf"\b{room}\b", words)
            ]
            if len(words.split()) < LEAST_WORDS:
                offences.append(f"{name} says nothing")
    assert not offences, "\n".join(offences)


def test_the_house_is_found() -> None:
    """The tests above see the packages, and would see what they look for."""
    assert all(any(_below(module, package) for module in MODULES) for package in PACKAGES)
    assert "qrag.wire.rules" in _imports()["qrag.cli.asking"]
    assert _circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == ["a <-> b <-> c"]
