"""The distribution qrag-client, installed into an empty environment, against a running server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.service.helpers import add

ROOT = Path(__file__).parents[2]
MEGABYTES = 1_000_000

NEEDED = {"anyio", "httpx", "pydantic", "qrag-client", "tqdm"}
UNWANTED = {
    *("fastapi", "starlette", "uvicorn", "mcp", "torch", "transformers", "numpy", "numba", "faiss-cpu", "lxml"),
    *("langchain-core", "llama-index-core", "haystack-ai", "opentelemetry-api", "qrag-server"),
}

ASK = """
import sys
from qrag import Client

with Client(sys.argv[1]) as qrag:
    print(qrag.retrieve("Who signed?", collection=sys.argv[2], max_steps=1).chunks[0].text)
"""


class Environment(NamedTuple):
    """A virtual environment that has the client and what it needs, and nothing else."""

    directory: Path

    @property
    def packages(self) -> Path:
        """Where the packages are."""
        (folder,) = (self.directory / "lib").glob("python*/site-packages")
        return folder

    def run(self, program: str, *arguments: str, **settings: str) -> str:
        """The output of a program of the environment, run outside the checkout."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "QRAG_"))}
        command = [str(self.directory / "bin" / program), *arguments]
        return _output(command, cwd=self.directory, environment=others | settings)


def _output(command: list[str], cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Installed from a copy, because building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("client")
    source, directory = folder / "client", folder / "venv"
    shutil.copytree(ROOT / "client", source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    venv.create(directory, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(directory), "--disable-pip-version-check"]
    _output([*pip, "install", "--constraint", str(ROOT / "constraints.txt"), str(source)], cwd=folder)
    return Environment(directory)


def test_it_brings_what_it_needs_and_nothing_of_the_server(installed: Environment) -> None:
    names = {path.name.split("-")[0].replace("_", "-").lower() for path in installed.packages.glob("*.dist-info")}
    assert names >= NEEDED
    assert not names & UNWANTED
    assert not {path.name for path in installed.packages.iterdir()} & {"index", "service", "trainer"}


def test_it_takes_less_than_40_megabytes(installed: Environment) -> None:
    size = sum(path.stat().st_size for path in installed.packages.rglob("*") if path.is_file())
    assert size < 40 * MEGABYTES, f"{size / MEGABYTES:.0f} MB"


def test_it_is_typed_and_carries_its_licence(installed: Environment) -> None:
    (metadata,) = installed.packages.glob("qrag_client-*.dist-info")
    assert (installed.packages / "qrag" / "py.typed").exists()
    assert (metadata / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    lines = (metadata / "METADATA").read_text().splitlines()
    assert {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")} == {
        "haystack",
        "langchain",
        "llama-index",
    }


def test_it_asks_a_running_server(installed: Environment, shared_client: httpx.Client, collection: str) -> None:
    add(shared_client, "Ana signed the lease.", id=collection, collection=collection)
    url = str(shared_client.base_url)
    answer = installed.run("qrag", "ask", "Who signed?", "--collection", collection, "--json", QRAG_URL=url)
    assert [chunk["document_id"] for chunk in json.loads(answer)["chunks"]] == [collection]
    assert installed.run("python", "-c", ASK, url, collection) == "Ana signed the lease.\n"
