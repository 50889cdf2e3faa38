"""deploy/kubernetes: its parts name each other rightly, kustomize builds it, and Kubernetes' own schemas take it.

What needs no tool is checked on the files themselves: whole objects, and patches that add to them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, Final

import httpx
import pytest
import yaml

from api import queue
from models.catalogue import CATALOGUE
from settings import DEFAULT_FILE, ENVIRONMENT, SERVICE_NAME, Settings, load
from tests.serving import fake
from tests.serving.pictures import ask, plain
from tests.serving.server import ROOT, serving
from tests.serving.test_metrics import samples
from tools.image import NAME, default_tag

KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
BASE: Final = KUBERNETES / "base"
OVERLAYS: Final = {variant: KUBERNETES / "overlays" / variant for variant in ("cpu", "gpu")}
BENTOML: Final = {"BENTOML_HOME"}  # variables that BentoML reads, not the settings
WITHOUT_SCHEMA: Final = {"ServiceMonitor"}  # the Prometheus operator's, not Kubernetes'
VERSIONS: Final = ("1.27", "1.37")  # the oldest that base/kustomization.yaml promises, and a recent one
DEFAULTS: Final = load(DEFAULT_FILE, {})
_MATCHER: Final = re.compile(r'(\w+)="([^"]+)"')

Object = dict[str, Any]

each_overlay = pytest.mark.parametrize("variant", OVERLAYS)


def read(file: Path) -> Object:
    content: Object = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def kustomization(folder: Path) -> Object:
    return read(folder / "kustomization.yaml")


def patches(folder: Path) -> list[str]:
    return [patch["path"] for patch in kustomization(folder).get("patches", [])]


def resources(folder: Path) -> list[str]:
    """The files that hold whole objects; without the other folders that a kustomization builds on."""
    return [name for name in kustomization(folder)["resources"] if name.endswith(".yaml")]


def objects(variant: str) -> dict[str, Object]:
    """Kind → whole object, as its file has it; there is one of each kind."""
    found = [read(folder / name) for folder in (BASE, OVERLAYS[variant]) for name in resources(folder)]
    assert len({each["kind"] for each in found}) == len(found)
    return {each["kind"]: each for each in found}


def deployments(variant: str) -> list[Object]:
    """The `spec` of the base's Deployment and what the overlay adds to it."""
    return [read(BASE / "deployment.yaml")["spec"], read(OVERLAYS[variant] / "deployment.yaml")["spec"]]


def pods(variant: str) -> list[Object]:
    return [each["template"]["spec"] for each in deployments(variant)]


def containers(variant: str) -> list[Object]:
    found = [container for pod in pods(variant) for container in pod["containers"]]
    assert {container["name"] for container in found} == {SERVICE_NAME}
    return found


def entries(parts: list[Object], key: str) -> list[Object]:
    return [entry for part in parts for entry in part.get(key, [])]


def environment(variant: str) -> dict[str, str]:
    """What the ConfigMap puts into the container."""
    generators = entries([kustomization(BASE), kustomization(OVERLAYS[variant])], "configMapGenerator")
    assert {generator["name"] for generator in generators} == {
        source["configMapRef"]["name"] for source in entries(containers(variant), "envFrom")
    }
    return dict(literal.split("=", 1) for generator in generators for literal in generator["literals"])


def settings(variant: str) -> Settings:
    return load(DEFAULT_FILE, environment(variant))


def adapter_rule() -> Object:
    (rule,) = read(KUBERNETES / "prometheus-adapter-rule.yaml")["rules"]["custom"]
    assert isinstance(rule, dict)
    return rule


def adapter_series() -> tuple[str, set[tuple[str, str]]]:
    """Name and labels of the series that the autoscaler's metric is made of."""
    query: str = adapter_rule()["seriesQuery"]
    return query.split("{")[0], set(_MATCHER.findall(query))


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS.values()], ids=lambda folder: folder.name)
def test_every_file_is_listed_and_every_listed_file_exists(folder: Path) -> None:
    there = {file.name for file in folder.iterdir()} - {"kustomization.yaml"}
    assert {*resources(folder), *patches(folder)} == there


@each_overlay
def test_an_overlay_builds_on_the_base_and_patches_what_is_there(variant: str) -> None:
    folder = OVERLAYS[variant]
    (other,) = set(kustomization(folder)["resources"]) - set(resources(folder))
    assert (folder / other).resolve() == BASE
    for name in patches(folder):
        patch = read(folder / name)
        patched = objects(variant)[patch["kind"]]
        assert (patch["apiVersion"], patch["metadata"]["name"]) == (
            patched["apiVersion"],
            patched["metadata"]["name"],
        )


@each_overlay
def test_whatever_selects_pods_selects_those_of_the_deployment(variant: str) -> None:
    found = objects(variant)
    deployment = found["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"] == {"matchLabels": labels}
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": labels}


@each_overlay
def test_the_service_leads_to_the_port_that_is_served(variant: str) -> None:
    (container_port,) = entries(containers(variant), "ports")
    (service_port,) = objects(variant)["Service"]["spec"]["ports"]
    assert service_port["targetPort"] == container_port["name"]
    assert service_port["port"] == container_port["containerPort"] == settings(variant).server.port


def test_each_probe_asks_a_route_of_that_port() -> None:
    (container,) = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: get["path"] for name, get in asked.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert {get["port"] for get in asked.values()} == {port["name"] for port in container["ports"]}


def test_a_pod_that_ends_has_time_for_the_longest_request() -> None:
    pod = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    _, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + DEFAULTS.limits.request_timeout_s


@each_overlay
def test_each_mount_has_its_volume_of_one_source(variant: str) -> None:
    volumes = entries(pods(variant), "volumes")
    mounts = entries(containers(variant), "volumeMounts")
    assert sorted(volume["name"] for volume in volumes) == sorted(mount["name"] for mount in mounts)
    assert all(len(volume) == 2 for volume in volumes)  # its name and one source
    paths = [PurePosixPath(mount["mountPath"]) for mount in mounts if not mount.get("readOnly")]
    written = [environment(variant)["BENTOML_HOME"], str(settings(variant).tensorrt.cache), "/tmp/x"]
    assert all(any(path in PurePosixPath(folder).parents for path in paths) for folder in written)


def test_the_weights_lie_where_the_import_step_looks_by_default() -> None:
    (mount,) = (mount for mount in entries(containers("gpu"), "volumeMounts") if mount["name"] == "models")
    assert mount["readOnly"] is True
    assert mount["subPath"] == "model-zoo"
    for spec in CATALOGUE.values():
        assert spec.default_path == str(PurePosixPath(mount["mountPath"]) / spec.weights / spec.file)
        assert spec.path_variable not in environment("gpu")


@each_overlay
def test_each_variable_is_one_that_is_read_and_its_value_is_allowed(variant: str) -> None:
    assert set(environment(variant)) <= {name for name, _ in ENVIRONMENT} | BENTOML
    settings(variant)


def test_only_with_a_gpu_weights_are_imported_and_the_gpu_is_required() -> None:
    assert (settings("gpu").import_at_start, settings("gpu").device.gpu_required) == (True, True)
    assert (settings("cpu").import_at_start, settings("cpu").device.gpu_required) == (False, False)
    limits = {
        variant: [c["resources"]["limits"] for c in containers(variant) if "resources" in c] for variant in OVERLAYS
    }
    assert [limit.get("nvidia.com/gpu") for limit in limits["gpu"]] == [1]
    assert [limit.get("nvidia.com/gpu") for limit in limits["cpu"]] == [None]


@each_overlay
def test_the_image_is_the_one_that_make_image_builds(variant: str) -> None:
    assert [container["image"] for container in containers(variant) if "image" in container] == [NAME]
    assert kustomization(OVERLAYS[variant])["images"] == [{"name": NAME, "newTag": default_tag(variant)}]


def test_the_pod_may_do_nothing_that_it_does_not_need() -> None:
    pod = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (user,) = re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    of_pod = pod["securityContext"]
    assert (of_pod["runAsNonRoot"], of_pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert {of_pod[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    added = [*pods("cpu")[1:], *pods("gpu")[1:], *containers("cpu")[1:], *containers("gpu")[1:]]
    assert not any("securityContext" in part for part in added)


def test_without_a_gpu_the_autoscaler_alone_says_how_many_pods_there_are() -> None:
    scaler = objects("cpu")["HorizontalPodAutoscaler"]["spec"]
    deployment = objects("cpu")["Deployment"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert not any("replicas" in spec for spec in deployments("cpu"))
    # One pod may be taken away while another one serves.
    assert objects("cpu")["PodDisruptionBudget"]["spec"]["maxUnavailable"] < scaler["minReplicas"]
    assert scaler["minReplicas"] < scaler["maxReplicas"]


def test_it_scales_long_before_requests_are_refused() -> None:
    (metric,) = objects("cpu")["HorizontalPodAutoscaler"]["spec"]["metrics"]
    target = int(metric["pods"]["target"]["averageValue"])
    assert max(DEFAULTS.models[name].max_batch_size for name in CATALOGUE) < target
    # Of depth, the slowest, two cores answer one a second: so many may wait, and three are worked on.
    assert target < DEFAULTS.limits.request_timeout_s * queue._SHARE + 3


def test_with_a_gpu_there_is_one_pod_that_leaves_its_card_before_the_next_one_comes() -> None:
    assert [spec.get("replicas") for spec in deployments("gpu")] == [None, 1]
    # A rolling update's numbers beside Recreate would be refused by the API server, and by no schema.
    assert [spec.get("strategy") for spec in deployments("gpu")] == [None, {"type": "Recreate"}]
    assert "HorizontalPodAutoscaler" not in objects("gpu")


@each_overlay
def test_prometheus_scrapes_the_service_under_the_job_and_the_labels_of_the_alert_rules(variant: str) -> None:
    service, monitor = objects(variant)["Service"], objects(variant)["ServiceMonitor"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    labels = service["metadata"]["labels"]
    assert monitor["spec"]["selector"] == {"matchLabels": labels}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    # Else the operator's own `endpoint` would take the place of the route.
    assert {"action": "labeldrop", "regex": "endpoint"} in endpoint["relabelings"]
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    assert f'up{{job="{labels[monitor["spec"]["jobLabel"]]}"}}' in alerts


def test_the_autoscalers_metric_is_the_adapters() -> None:
    (metric,) = objects("cpu")["HorizontalPodAutoscaler"]["spec"]["metrics"]
    rule = adapter_rule()
    assert metric["type"] == "Pods"
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    name, labels = adapter_series()
    assert re.fullmatch(rule["name"]["matches"], name)
    assert set(_MATCHER.findall(rule["metricsQuery"])) == labels


@pytest.mark.serve
def test_the_adapters_series_counts_each_request_in_flight_once(tmp_path: Path) -> None:
    name, wanted = adapter_series()
    with serving(tmp_path, {}) as server, httpx.Client(base_url=server.url, timeout=30) as client:

        def in_flight() -> list[float]:
            # In an image `service_name` is the bento's in every process.
            return [
                value
                for labels, value in samples(client, name).get(name, {}).items()
                if wanted <= {*labels, ("service_name", SERVICE_NAME)}
            ]

        assert in_flight() == [0]  # of /readyz: there before any request
        slow = plain(fake.sleeper(2))
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(ask, client, "/person-reid", slow) for _ in range(3)]
            server.wait(lambda: sum(in_flight()) >= 3, "three requests in flight")
            assert sum(in_flight()) == 3
        assert [answer.result().status_code for answer in answers] == [200] * 3
        assert sum(in_flight()) == 0


def test_prometheus_itself_takes_the_adapters_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    query: str = adapter_rule()["metricsQuery"]
    filled = {
        "<<.Series>>": adapter_series()[0],
        "<<.LabelMatchers>>": 'namespace="n",pod=~"p|q"',
        "<<.GroupBy>>": "pod",
    }
    for place, text in filled.items():
        query = query.replace(place, text)
    assert "<<" not in query
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [{"record": "x", "expr": query}]}]}))
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def build(variant: str) -> dict[str, Object]:
    """Kind → object, as kustomize makes them of the overlay."""
    commands = (["kustomize", "build"], ["kubectl", "kustomize"])
    command = next((command for command in commands if shutil.which(command[0])), None)
    if command is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run([*command, str(OVERLAYS[variant])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


@each_overlay
def test_kustomize_puts_base_and_overlay_together(variant: str) -> None:
    built = build(variant)
    assert set(built) == {*objects(variant), "ConfigMap"}
    settings_map = built["ConfigMap"]
    assert settings_map["data"] == environment(variant)
    assert re.fullmatch(rf"{NAME}-\w+", settings_map["metadata"]["name"])  # a changed setting starts new pods
    pod = built["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": settings_map["metadata"]["name"]}}]
    assert container["image"] == f"{NAME}:{default_tag(variant)}"
    for whole, parts, key in ((pod, pods(variant), "volumes"), (container, containers(variant), "volumeMounts")):
        assert sorted(whole[key], key=itemgetter("name")) == sorted(entries(parts, key), key=itemgetter("name"))


@each_overlay
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_each_object_and_knows_every_key_of_it(variant: str, version: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    checked = {kind: each for kind, each in build(variant).items() if kind not in WITHOUT_SCHEMA}
    for each in checked.values():
        schemas.validate(each, version, strict=True)
    assert {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget"} <= set(checked)
