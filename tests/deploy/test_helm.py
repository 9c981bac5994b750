"""The Helm chart, rendered by Helm itself and checked against Kubernetes' own schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from service.host_names import parse_authority
from service.http.hosts import PROBE_PATHS
from tests.deploy.dockerfile import FINAL_STAGES, Stage, environment, last

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "qrag"
KEYS = {"keys": ["first-key", "second-key"], "metricsKey": "key-of-prometheus"}
EVERYTHING = {
    "auth": KEYS,
    "env": {"QRAG_PRESELECT_ABOVE": 3000000, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
    "gpu": {"enabled": True, "count": 2},
    "image": {"repository": "registry.example.com/qrag", "pullSecrets": [{"name": "registry"}]},
    "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "certificate", "annotations": {"a": "b"}},
    "monitoring": {"serviceMonitor": True, "prometheusRule": True, "dashboard": True, "labels": {"release": "prom"}},
    "persistence": {"storageClass": "fast"},
    "podDisruptionBudget": {"enabled": True},
    "podAnnotations": {"c": "d"},
    "service": {"annotations": {"e": "f"}},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "everything": EVERYTHING,
    "keys": {"auth": KEYS},
    "own secret": {"auth": {"existingSecret": "mine"}},
    "replicas": {"auth": KEYS, "replicas": 3, "engines": {"existingSecret": "engines"}},
    "strangers": {"auth": {"allowAnonymous": True}},
    "strangers with a key for continuations": {"auth": {"allowAnonymous": True, "continuationKey": "k" * 32}},
}
NOT_KUBERNETES = ("ServiceMonitor", "PrometheusRule")
"""The Prometheus Operator's: Kubernetes has no schema of them."""

Objects = dict[tuple[str, str], Any]


def rendered(values: dict[str, Any], name: str = "demo") -> Objects:
    """What would be installed, by kind and name."""
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name=name, namespace="search")
    texts = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
    objects = [each for text in texts for each in yaml.safe_load_all(text) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Objects:
    return rendered(VARIANTS[request.param])


@pytest.fixture(scope="module")
def everything() -> Objects:
    return rendered(EVERYTHING)


def pod(objects: Objects) -> Any:
    return objects["StatefulSet", "demo-qrag"]["spec"]["template"]["spec"]


def container(objects: Objects) -> Any:
    (only,) = pod(objects)["containers"]
    return only


def variables(objects: Objects) -> dict[str, Any]:
    """The process' environment: values, or where they come from."""
    named = container(objects)["env"]
    assert len({each["name"] for each in named}) == len(named)
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in named}


def strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from strings(value)
    elif isinstance(tree, str):
        yield tree


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_helm_finds_no_fault(values: dict[str, Any]) -> None:
    report = helm_python.lint(str(CHART), values, strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_objects_follow_the_schemas_of_kubernetes(variant: Objects) -> None:
    checked = [each for (kind, _), each in variant.items() if kind not in NOT_KUBERNETES]
    assert len(checked) >= 3
    for each in checked:
        for version in ("1.31", "1.37"):
            kubernetes_validate.validate(each, version, strict=True)


def test_everything_can_be_asked_for_and_little_is_there_by_default(everything: Objects) -> None:
    few = {("StatefulSet", "demo-qrag"), ("Service", "demo-qrag"), ("Service", "demo-qrag-pods")}
    assert rendered({"auth": {"allowAnonymous": True}}).keys() == few
    assert everything.keys() == few | {
        ("Secret", "demo-qrag"),
        ("Ingress", "demo-qrag"),
        ("PodDisruptionBudget", "demo-qrag"),
        ("ServiceMonitor", "demo-qrag"),
        ("PrometheusRule", "demo-qrag"),
        ("ConfigMap", "demo-qrag-dashboard"),
    }


def test_names_hold_together(everything: Objects) -> None:
    """What refers to another object names one that is there."""
    stateful, service = everything["StatefulSet", "demo-qrag"]["spec"], everything["Service", "demo-qrag"]
    labels = stateful["template"]["metadata"]["labels"]
    assert ("Service", stateful["serviceName"]) in everything
    selectors = [
        stateful["selector"]["matchLabels"],
        service["spec"]["selector"],
        everything["Service", "demo-qrag-pods"]["spec"]["selector"],
        everything["PodDisruptionBudget", "demo-qrag"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
    monitor = everything["ServiceMonitor", "demo-qrag"]["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    found = [name for (kind, name), each in everything.items() if kind == "Service" and wanted <= labels_of(each)]
    assert found == ["demo-qrag"], "not scraped twice"
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    (rule,) = everything["Ingress", "demo-qrag"]["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "demo-qrag", "port": {"name": "http"}}


def labels_of(object_: Any) -> Any:
    return object_["metadata"]["labels"].items()


@pytest.mark.parametrize(("values", "stage"), [("everything", "gpu"), ("keys", "cpu")])
def test_the_pod_agrees_with_the_image(stages: dict[str, Stage], values: str, stage: str) -> None:
    objects = rendered(VARIANTS[values])
    assert stage in FINAL_STAGES
    assert container(objects)["image"].endswith(f":{stage}")
    limits = container(objects)["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == (2 if stage == "gpu" else None)
    assert limits["memory"] == "4Gi"
    user, group = map(int, last(stages, stage, "USER").split(":"))
    security = pod(objects)["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (user, group, group)
    (port,) = container(objects)["ports"]
    assert port["containerPort"] == int(last(stages, stage, "EXPOSE"))
    mounts = {mount["name"]: mount["mountPath"] for mount in container(objects)["volumeMounts"]}
    assert mounts == {"data": environment(stages, stage)["QRAG_DATA_DIR"], "tmp": "/tmp"}


def test_the_container_is_confined(variant: Objects) -> None:
    assert container(variant)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(variant)["securityContext"]["runAsNonRoot"] is True
    assert pod(variant)["automountServiceAccountToken"] is False


def test_each_process_has_a_volume_to_itself(variant: Objects) -> None:
    stateful = variant["StatefulSet", "demo-qrag"]["spec"]
    assert stateful["replicas"] == (3 if "QRAG_DATABASE_URL" in variables(variant) else 1)
    (claim,) = stateful["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_probes_ask_what_answers_without_a_key(variant: Objects) -> None:
    probes = [container(variant)[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    # A restart does not bring back an engine.
    alive = "/healthz" if "QRAG_DATABASE_URL" in variables(variant) else "/readyz"
    assert [probe["httpGet"]["path"] for probe in probes] == ["/readyz", "/readyz", alive]
    assert {"/readyz", "/healthz"} <= set(PROBE_PATHS)  # under the pod's address, which is no name of the service
    assert {probe["httpGet"]["port"] for probe in probes} == {"http"}


def test_the_engines_are_named_by_a_secret() -> None:
    objects = rendered(VARIANTS["replicas"])
    found = {name: value for name, value in variables(objects).items() if name.startswith(("QRAG_DATA", "QRAG_QD"))}
    named = {name: (value["secretKeyRef"]["name"], value["secretKeyRef"]["key"]) for name, value in found.items()}
    assert named == {
        "QRAG_DATABASE_URL": ("engines", "database-url"),
        "QRAG_QDRANT_URL": ("engines", "qdrant-url"),
        "QRAG_QDRANT_API_KEY": ("engines", "qdrant-api-key"),
    }
    assert found["QRAG_QDRANT_API_KEY"]["secretKeyRef"]["optional"] is True
    assert variables(objects)["QRAG_OTHER_VECTORS"] == "refuse"
    budget = rendered({**VARIANTS["replicas"], "podDisruptionBudget": {"enabled": True}})
    assert budget["PodDisruptionBudget", "demo-qrag"]["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("auth", [KEYS, {"allowAnonymous": True}])
def test_the_key_of_continuations_is_a_secret(auth: dict[str, Any]) -> None:
    key = "a-key-that-several-copies-share-0"
    objects = rendered({"auth": {**auth, "continuationKey": key}, "keepQuestionsDays": 30})
    reference = variables(objects)["QRAG_CONTINUATION_KEY"]["secretKeyRef"]
    assert objects["Secret", reference["name"]]["stringData"][reference["key"]] == key
    assert [text for text in strings(objects["StatefulSet", "demo-qrag"]) if key in text] == []
    assert variables(objects)["QRAG_KEEP_QUESTIONS_DAYS"] == "30"
    with pytest.raises(Exception, match="continuationKey"):
        rendered({"auth": {**auth, "continuationKey": "short"}})


def test_without_a_key_of_its_own_a_pod_takes_that_of_its_secret_where_there_is_one() -> None:
    for values in ({"auth": KEYS}, {"auth": {"existingSecret": "mine"}}):
        reference = variables(rendered(values))["QRAG_CONTINUATION_KEY"]["secretKeyRef"]
        assert reference["optional"] is True
    assert "QRAG_CONTINUATION_KEY" not in variables(rendered({"auth": {"allowAnonymous": True}}))


@pytest.mark.parametrize("seconds", [10, 60])
def test_requests_and_indexing_have_time_to_end(seconds: int) -> None:
    objects = rendered({"auth": KEYS, "shutdownSeconds": seconds})
    assert variables(objects)["QRAG_SHUTDOWN_SECONDS"] == str(seconds)
    assert pod(objects)["terminationGracePeriodSeconds"] == seconds + 20


def test_keys_are_in_the_secret_alone(everything: Objects) -> None:
    secret = everything["Secret", "demo-qrag"]["stringData"]
    assert secret == {"api-keys": "first-key,second-key,key-of-prometheus", "metrics-key": "key-of-prometheus"}
    others = [each for (kind, _), each in everything.items() if kind != "Secret"]
    assert not [text for text in strings(others) if "first-key" in text or "key-of-prometheus" in text]
    assert variables(everything)["QRAG_API_KEYS"] == {"secretKeyRef": {"name": "demo-qrag", "key": "api-keys"}}
    (endpoint,) = everything["ServiceMonitor", "demo-qrag"]["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "demo-qrag", "key": "metrics-key"}


def test_new_keys_start_the_pod_anew() -> None:
    one, other = (
        rendered({"auth": {"keys": [key]}})["StatefulSet", "demo-qrag"]["spec"]["template"]["metadata"]["annotations"]
        for key in ("old", "new")
    )
    assert one != other


def test_a_secret_of_ones_own_is_used_and_none_is_made() -> None:
    objects = rendered(VARIANTS["own secret"])
    assert variables(objects)["QRAG_API_KEYS"] == {"secretKeyRef": {"name": "mine", "key": "api-keys"}}
    assert not [name for kind, name in objects if kind == "Secret"]


def test_strangers_are_let_in_only_where_that_is_said() -> None:
    assert variables(rendered(VARIANTS["strangers"]))["QRAG_ALLOW_ANONYMOUS"] == "true"
    assert "QRAG_ALLOW_ANONYMOUS" not in variables(rendered(VARIANTS["keys"]))


def test_strangers_reach_the_service_under_its_names() -> None:
    names = ["demo-qrag", *(f"demo-qrag.search{rest}" for rest in ("", ".svc", ".svc.cluster.local"))]
    assert variables(rendered(VARIANTS["strangers"]))["QRAG_ALLOWED_HOSTS"].split(",") == names
    more = {
        "auth": {"allowAnonymous": True, "allowedHosts": ["*.example.org"]},
        "ingress": {"enabled": True, "host": "qrag.example.com"},
    }
    hosts = variables(rendered(more))["QRAG_ALLOWED_HOSTS"].split(",")
    assert hosts == [*names, "qrag.example.com", "*.example.org"]
    assert all(parse_authority(host) for host in hosts)
    assert "QRAG_ALLOWED_HOSTS" not in variables(rendered(VARIANTS["keys"]))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "auth.allowAnonymous=true"),
        ({"auth": {"keys": ["k"]}, "monitoring": {"serviceMonitor": True}}, "auth.metricsKey"),
        ({"auth": {"keys": ["two,in-one"]}}, "pattern"),
        ({"auth": {"allowAnonymous": True, "allowedHosts": ["https://example.org"]}}, "pattern"),
        ({"auth": KEYS, "replicas": 2}, "engines.existingSecret"),
        ({"auth": {"existingSecret": "mine", "continuationKey": "k" * 32}}, "put api-keys"),
        ({"auth": {"existingSecret": "mine", **KEYS}}, "put api-keys"),
        ({"auth": KEYS, "copies": 2}, "additional properties 'copies' not allowed"),
        ({"auth": KEYS, "persistence": {"accessModes": ["ReadWriteMany"]}}, "accessModes"),
    ],
)
def test_values_that_cannot_work_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(helm_python.HelmError, match=says):
        rendered(values)


def test_settings_reach_the_service_as_they_are_written(everything: Objects) -> None:
    assert variables(everything)["QRAG_PRESELECT_ABOVE"] == "3000000"
    assert variables(everything)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert variables(everything)["QRAG_LOG_FORMAT"] == "json"


def test_alerts_and_dashboard_are_those_of_the_repository(everything: Objects) -> None:
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert everything["PrometheusRule", "demo-qrag"]["spec"] == alerts
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "qrag.json").read_text())
    assert json.loads(everything["ConfigMap", "demo-qrag-dashboard"]["data"]["qrag.json"]) == dashboard
    (endpoint,) = everything["ServiceMonitor", "demo-qrag"]["spec"]["endpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "qrag"}]
