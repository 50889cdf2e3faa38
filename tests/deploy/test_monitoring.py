"""The alert rules: Prometheus takes them, and every metric that they ask for is one that the service exposes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.deploy.test_grafana import metrics
from tests.serving.pictures import ask, plain
from tests.serving.server import ROOT, serving
from tests.serving.test_metrics import samples

PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
OF_PROMETHEUS: Final = {"up"}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_each_rule_says_what_it_is_about_and_where_to_look() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.serve
def test_every_metric_of_the_rules_is_exposed(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        assert ask(client, "/person-reid", plain((1, 2, 3))).status_code == 200
        exposed = set(samples(client))
    asked = set().union(*(metrics(rule["expr"]) for rule in rules()))
    assert len(asked) > 5
    assert asked - OF_PROMETHEUS <= exposed


def test_prometheus_itself_takes_rules_and_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    for command in (["check", "rules", "alerts.yml"], ["check", "config", "--syntax-only", "prometheus.yml"]):
        done = subprocess.run([promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
