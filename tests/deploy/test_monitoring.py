"""The dashboard and the alerts: what they ask for is what a running service exports.

promtool and Prometheus are asked as well where they are installed (Debian's package `prometheus`).
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, BinaryExpr, Expr, MatchOp, VectorSelector

from tests.servers import running_server
from tests.service.helpers import add, ask, until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "qrag.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
KEY = "a-key-for-prometheus"

TARGET_LABELS = {"job": {"qrag"}, "instance": {"qrag:8000"}}
"""What Prometheus adds to everything that it scrapes."""

NOT_HERE = {
    "qrag_gpu_memory_bytes": {"kind": {"allocated", "reserved", "size"}},
    "qrag_storage_calls_total": {"kind": {"search", "read", "write"}},
    "qrag_storage_call_seconds_total": {"kind": {"search", "read", "write"}},
}
"""Metrics of which a service without a GPU and without Qdrant has no sample."""

UNUSUAL = {("status", "500")}
"""Label values that a service that works does not have."""


def filled_in(query: str) -> str:
    """A panel's query as Grafana sends it."""
    for name, value in (("$__rate_interval", "1m"), ("$job", "qrag"), ("$instance", ".*")):
        query = query.replace(name, value)
    return query


class Query(NamedTuple):
    where: str
    text: str
    legend: str


QUERIES = [
    *(
        Query(panel["title"], filled_in(target["expr"]), target["legendFormat"])
        for panel in PANELS
        for target in panel["targets"]
    ),
    *(Query(rule["alert"], rule["expr"], json.dumps(rule["annotations"])) for rule in RULES),
]

ON_EACH = pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.where}: {query.text[:40].strip()}")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a service with a key that has had some traffic."""
    with running_server(tmp_path_factory.mktemp("data"), tiny_checkpoint, api_keys=KEY) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        add(client, "Ana signed the lease.")
        ask(client, "Who signed?")
        client.get("/documents/nobody")
        yield client


@pytest.fixture(scope="module")
def exported(client: httpx.Client) -> dict[str, dict[str, set[str]]]:
    """For every sample's name, its labels and their values."""
    found: dict[str, dict[str, set[str]]] = {name: dict(labels) for name, labels in NOT_HERE.items()}
    found["up"] = {}  # Prometheus' own
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, defaultdict(set))
            for label, value in sample.labels.items():
                labels[label].add(value)
    return found


def inside(expression: Expr) -> Iterator[Expr]:
    """An expression and all its parts."""
    parts: list[Expr] = []
    promql_parser.walk(expression, lambda part: parts.append(part))
    return iter(parts)


def selectors(expression: Expr) -> list[tuple[str, VectorSelector]]:
    """What is asked for, each with the name of its metric."""
    return [(part.name or "", part) for part in inside(expression) if isinstance(part, VectorSelector)]


def labels_named(part: Expr) -> set[str]:
    """After `by`, `on` or `ignoring`."""
    if isinstance(part, AggregateExpr) and part.modifier:
        return set(part.modifier.labels)
    if isinstance(part, BinaryExpr) and part.modifier and part.modifier.matching:
        return set(part.modifier.matching.labels)
    return set()


@ON_EACH
def test_queries_ask_for_what_is_exported(query: Query, exported: dict[str, dict[str, set[str]]]) -> None:
    expression = promql_parser.parse(query.text)
    assert selectors(expression), "asks for something"
    for name, selector in selectors(expression):
        assert name in exported
        known = TARGET_LABELS | exported[name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in known, f"{name} has no label {matcher.name}"
            if matcher.op == MatchOp.Equal and (matcher.name, matcher.value) not in UNUSUAL:
                assert matcher.value in known[matcher.name], f"no {name} has {matcher.name}={matcher.value}"
    for part in inside(expression):
        for name, _ in selectors(part):
            assert labels_named(part) <= (TARGET_LABELS | exported[name]).keys()


@ON_EACH
def test_names_of_labels_in_texts_are_those_that_the_query_leaves(
    query: Query, exported: dict[str, dict[str, set[str]]]
) -> None:
    expression = promql_parser.parse(query.text)
    sums = [part for part in inside(expression) if isinstance(part, AggregateExpr)]
    left = set(TARGET_LABELS)
    for name, _ in selectors(expression):
        left |= exported[name].keys()
    for each in sums:
        left &= set(each.modifier.labels) if each.modifier else set()
    used = re.findall(r"\$labels\.(\w+)|\{\{(\w+)\}\}", query.legend)
    assert {alert or panel for alert, panel in used} <= left


def test_gpu_metrics_are_announced_where_there_is_no_gpu(client: httpx.Client) -> None:
    assert "# TYPE qrag_gpu_memory_bytes gauge" in client.get("/metrics").text


def test_the_dashboard_is_laid_out_without_gaps_and_overlaps() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert taken == {(x, y) for x in range(24) for y in range(max(y for _, y in taken) + 1)}


def test_panels_take_their_data_from_the_source_that_is_chosen() -> None:
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "job", "instance"]
    for panel in PANELS:
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_alert_has_a_severity_a_summary_and_a_place_in_the_runbook() -> None:
    runbook = (DEPLOY.parent / "docs" / "operating.md").read_text()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert "$labels.instance" in rule["annotations"]["summary"]
        assert f"| `{rule['alert']}` |" in runbook


def test_every_alert_has_a_unit_test() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
    fired = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in RULES}


def test_grafana_finds_what_is_provisioned() -> None:
    """The overlay puts the files where the provisioning says that they are."""
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "qrag.yml").read_text())["providers"]
    services = yaml.safe_load((DEPLOY / "compose.monitoring.yml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"] if volume.startswith("./"))
    assert mounted["./deploy/grafana/qrag.json"] == f"{provider['options']['path']}/qrag.json"
    for source_path in mounted:
        assert (DEPLOY.parent / source_path).exists()
    assert source["url"] == "http://prometheus:9090"
    assert services["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]


# By the real programs


def promtool(*arguments: str | Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    ended = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint-fatal", DEPLOY / "prometheus" / "alerts.yml")


def test_promtool_accepts_the_configuration() -> None:
    promtool("check", "config", "--syntax-only", DEPLOY / "prometheus" / "prometheus.yml")


def test_prometheus_asks_for_the_service_by_the_name_and_the_port_that_it_has_in_compose() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    services = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]
    assert set(found["names"]) <= set(services)
    assert services[found["names"][0]]["ports"][0].endswith(f":{found['port']}")


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", DEPLOY / "prometheus" / "alerts_test.yml")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, client: httpx.Client) -> Iterator[httpx.Client]:
    """A client of Prometheus with our configuration, which scrapes the service of this module every second."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    home = tmp_path_factory.mktemp("prometheus")
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(DEPLOY / "prometheus" / "alerts.yml")]
    (job,) = configuration["scrape_configs"]
    del job["dns_sd_configs"]  # there is no Docker here whose names it could ask
    job["static_configs"] = [{"targets": [f"{client.base_url.host}:{client.base_url.port}"]}]
    job["authorization"]["credentials_file"] = str(home / "key")
    (home / "key").write_text(f"{KEY}\n")
    (home / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = {
        "config.file": home / "prometheus.yml",
        "storage.tsdb.path": home / "data",
        "web.listen-address": address,
    }
    process = subprocess.Popen(
        ["prometheus", *(f"--{name}={value}" for name, value in options.items())],
        stderr=subprocess.DEVNULL,
    )
    try:
        transport = httpx.HTTPTransport(retries=5)  # until it listens
        with httpx.Client(base_url=f"http://{address}", transport=transport, timeout=30) as prometheus:
            until(lambda: prometheus.get("/-/ready").status_code == 200)
            scraped_twice = "count_over_time(qrag_thread_alive[1m]) >= 2"
            until(lambda: len(asked(prometheus, scraped_twice)) == 3)
            yield prometheus
    finally:
        process.kill()
        process.wait()


def asked(prometheus: httpx.Client, query: str) -> list[Any]:
    answer = prometheus.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    result: list[Any] = answer["data"]["result"]
    return result


def test_prometheus_reaches_the_service_with_the_key_and_no_alert_fires(prometheus: httpx.Client) -> None:
    assert [sample["value"][1] for sample in asked(prometheus, 'up{job="qrag"}')] == ["1"]
    until(lambda: all(rule["health"] == "ok" for rule in rules_of(prometheus)))
    assert {rule["name"]: rule["state"] for rule in rules_of(prometheus)} == {
        rule["alert"]: "inactive" for rule in RULES
    }


def rules_of(prometheus: httpx.Client) -> list[Any]:
    return [rule for group in prometheus.get("/api/v1/rules").json()["data"]["groups"] for rule in group["rules"]]


def test_every_panel_shows_something(prometheus: httpx.Client) -> None:
    empty = [
        query.text
        for query in QUERIES[: len(QUERIES) - len(RULES)]
        if not asked(prometheus, query.text) and not any(name in query.text for name in NOT_HERE)
    ]
    assert [query for query in empty if "qrag_indexing_stalled" not in query] == []
