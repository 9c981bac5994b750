"""The compose files, without Docker: the specification's schema, and what the files claim about each other.

The schema comes from PyPI (check-jsonschema), so nothing here needs a network. `docker compose config` needs no Docker
engine either, and is asked as well where it is installed.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from service.settings import Settings
from tests.deploy.dockerfile import FINAL_STAGES, Stage, environment, last
from tests.deploy.tools import run

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "docker-compose.yml"
CPU_OVERLAY = ROOT / "deploy" / "compose.cpu.yml"
MONITORING = ROOT / "deploy" / "compose.monitoring.yml"
REPLICAS = ROOT / "deploy" / "compose.replicas.yml"
SECRETS = {"POSTGRES_PASSWORD": "a1", "QDRANT_API_KEY": "b2"}


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
    name, *_ = hosts.split(",")
    assert name in model["services"]
