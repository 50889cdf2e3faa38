"""compose.monitoring.yaml: what it mounts is there, and its parts find each other."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any, Final

import pytest
import yaml

from tests.serving.server import ROOT

DEPLOY: Final = ROOT / "deploy"
PROVISIONING: Final = "/etc/grafana/provisioning"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return found


def mounts(service: str) -> dict[str, str]:
    """Folder in the container → folder in deploy/, or the name of a volume."""
    volumes = read("compose.monitoring.yaml")["services"][service]["volumes"]
    return {volume.split(":")[1]: volume.split(":")[0] for volume in volumes}


def test_prometheus_reads_our_configuration_and_scrapes_the_service() -> None:
    assert mounts("prometheus")["/etc/prometheus"] == "./prometheus"
    (job,) = read("prometheus/prometheus.yml")["scrape_configs"]
    ((target,),) = (config["targets"] for config in job["static_configs"])
    host, port = target.split(":")
    for file in ("compose.yaml", "compose.cpu.yaml"):
        service = read(file)["services"][host]
        assert service["ports"][0].endswith(f":{port}")
        assert read(file)["name"] == read("compose.monitoring.yaml")["name"]  # so they share a network


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    mounted = mounts("grafana")
    (source,) = read("grafana/datasources/prometheus.yml")["datasources"]
    assert source["isDefault"] is True
    host, port = source["url"].removeprefix("http://").split(":")
    assert read("compose.monitoring.yaml")["services"][host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert (DEPLOY / mounted[f"{PROVISIONING}/datasources"] / "prometheus.yml").is_file()
    (provider,) = read("grafana/dashboards.yml")["providers"]
    dashboards = DEPLOY / mounted[provider["options"]["path"]]
    home = read("compose.monitoring.yaml")["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert (dashboards / home.removeprefix(f"{PROVISIONING}/dashboards/")).is_file()


def test_both_listen_on_this_machine_only() -> None:
    for service in read("compose.monitoring.yaml")["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("file", ["compose.yaml", "compose.cpu.yaml"])
def test_compose_takes_it_beside_the_service(file: str) -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    files = ["-f", str(DEPLOY / file), "-f", str(DEPLOY / "compose.monitoring.yaml")]
    done = subprocess.run(["docker", "compose", *files, "config", "-q"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
