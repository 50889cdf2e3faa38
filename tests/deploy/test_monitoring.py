"""The rules: Prometheus takes them, and every metric that they ask for is one that the service exposes."""

from __future__ import annotations

import re
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


RULE_FILES: Final = ("alerts.yml", "family.yml")


def rules(file: str) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / file).read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_each_alert_says_what_it_is_about_and_where_to_look() -> None:
    alerts = rules("alerts.yml")
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.serve
def test_every_metric_of_the_rules_is_exposed(tmp_path: Path) -> None:
    with serving(tmp_path, {}) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        assert ask(client, "/person-reid", plain((1, 2, 3))).status_code == 200
        exposed = set(samples(client))
    asked = set().union(*(metrics(rule["expr"]) for file in RULE_FILES for rule in rules(file)))
    assert len(asked) > 5
    assert asked - OF_PROMETHEUS <= exposed


def promtool(*arguments: str, cwd: Path = PROMETHEUS) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", RULE_FILES)
def test_prometheus_itself_takes_the_rules(file: str) -> None:
    promtool("check", "rules", file)


def test_prometheus_itself_takes_the_configuration() -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yml")
    configured = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert configured["rule_files"] == list(RULE_FILES)


def test_the_familys_labels_come_out_of_ours(tmp_path: Path) -> None:
    requests, latency = "enrichment_light_inference_requests_total", "enrichment_light_inference_latency_seconds"
    ours = {
        f'{requests}{{job="j",instance="i",endpoint="/pose-analyze",status="200"}}': 7,
        f'{requests}{{job="j",instance="i",endpoint="/pose-analyze",status="422"}}': 2,
        f'{requests}{{job="j",instance="i",endpoint="/pose-analyze",status="503"}}': 3,
        f'{requests}{{job="j",instance="i",endpoint="/person-reid",status="200"}}': 1,
        f'{requests}{{job="j",instance="other",endpoint="/pose-analyze",status="200"}}': 5,
        f'{latency}_bucket{{endpoint="/pose-analyze",le="0.1"}}': 4,
        f'{latency}_sum{{endpoint="/pose-analyze"}}': 0.5,
        f'{latency}_count{{endpoint="/pose-analyze"}}': 6,
    }
    family: dict[str, dict[str, float]] = {
        "inference_requests:total": {
            '{job="j",instance="i",endpoint="pose-analyze",status="success"}': 7,
            '{job="j",instance="i",endpoint="pose-analyze",status="error"}': 5,
            '{job="j",instance="i",endpoint="person-reid",status="success"}': 1,
            '{job="j",instance="other",endpoint="pose-analyze",status="success"}': 5,
        },
        "inference_latency_seconds:bucket": {'{endpoint="pose-analyze",le="0.1"}': 4},
        "inference_latency_seconds:sum": {'{endpoint="pose-analyze"}': 0.5},
        "inference_latency_seconds:count": {'{endpoint="pose-analyze"}': 6},
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": f"{value}x5"} for series, value in ours.items()],
        "promql_expr_test": [
            {
                "expr": f"enrichment_light:{name}",
                "eval_time": "2m",
                "exp_samples": [
                    {"labels": f"enrichment_light:{name}{labels}", "value": value} for labels, value in expected.items()
                ],
            }
            for name, expected in family.items()
        ],
    }
    shutil.copy(PROMETHEUS / "family.yml", tmp_path)
    tests = {"rule_files": ["family.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    promtool("test", "rules", "test.yml", cwd=tmp_path)


LATENCY: Final = "enrichment_light_inference_latency_seconds_bucket"
UP: Final = 'up{job="ai-enrichment-light"}'
#: Alert → series with their values at minutes 0, 1 …, in which it fires and in which it is silent.
ALERTS: Final[dict[str, tuple[dict[str, str], dict[str, str]]]] = {
    "EnrichmentLightDown": ({UP: "0x20"}, {UP: "1x20"}),
    "EnrichmentLightModelUnavailable": (
        {UP: "1x20", 'enrichment_light_model_state{model="m",state="failed"}': "1x20"},
        {UP: "1x20", 'enrichment_light_model_state{model="m",state="failed"}': "0x20"},
    ),
    "EnrichmentLightErrors": tuple(
        {
            UP: "1x20",
            'enrichment_light_inference_requests_total{endpoint="/e",status="503"}': f"0+{bad}x20",
            'enrichment_light_inference_requests_total{endpoint="/e",status="200"}': "0+94x20",
        }
        for bad in (6, 4)
    ),  # type: ignore[dict-item]
    "EnrichmentLightSlow": tuple(
        {
            UP: "1x20",
            f'{LATENCY}{{endpoint="{route}",le="1"}}': "0+90x20",
            f'{LATENCY}{{endpoint="{route}",le="2"}}': f"0+{within_2}x20",
            f'{LATENCY}{{endpoint="{route}",le="10"}}': f"0+{within_10}x20",
            f'{LATENCY}{{endpoint="{route}",le="+Inf"}}': "0+100x20",
        }
        for route, within_2, within_10 in (("/pose-analyze", 94, 100), ("/enrich", 94, 96))
    ),  # type: ignore[dict-item]
    "EnrichmentLightRestarted": (
        {UP: "1x20", "enrichment_light_start_time_seconds": "100x9 200x10"},
        {UP: "1x20", "enrichment_light_start_time_seconds": "100x20"},
    ),
    "EnrichmentLightRunnerRestarted": (
        {UP: "1x20", 'enrichment_light_runner_restarts{runner="r"}': "0x9 1x10"},
        {UP: "1x20", 'enrichment_light_runner_restarts{runner="r"}': "1x20"},
    ),
    "EnrichmentLightOverBudget": tuple(
        {
            UP: "1x20",
            'enrichment_light_runner_memory_used_gb{runner="r"}': "1.3x20",
            'enrichment_light_runner_memory_budget_gb{runner="r"}': f"{budget}x20",
        }
        for budget in (1.2, 0)
    ),  # type: ignore[dict-item]
    "EnrichmentLightOutOfMemory": (
        {UP: "1x20", 'enrichment_light_out_of_memory_total{runner="r"}': "0x9 1x10"},
        {UP: "1x20", 'enrichment_light_out_of_memory_total{runner="r"}': "1x20"},
    ),
    "EnrichmentLightEngineBuildFailed": (
        {UP: "1x20", 'enrichment_light_engine_build_failed{model="m"}': "1x20"},
        {UP: "1x20", 'enrichment_light_engine_build_failed{model="m"}': "0x20"},
    ),
}


def test_every_alert_is_tested_and_documented() -> None:
    alerts = {rule["alert"] for rule in rules("alerts.yml")}
    page = (ROOT / "docs" / "operate" / "monitoring.md").read_text(encoding="utf-8")
    assert alerts == set(ALERTS) == set(re.findall(r"EnrichmentLight\w+", page))


@pytest.mark.parametrize("alert", ALERTS)
@pytest.mark.parametrize("fires", [True, False])
def test_an_alert_fires_when_it_should(alert: str, fires: bool, tmp_path: Path) -> None:
    series = ALERTS[alert][not fires]
    rule = next(rule for rule in rules("alerts.yml") if rule["alert"] == alert)
    # Prometheus' own test compares labels and texts, too; only whether it fires is asked here.
    counted = {"expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)', "eval_time": "18m"}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [counted | {"exp_samples": [{"labels": "{}", "value": int(fires)}]}],
    }
    group = {"groups": [{"name": "one", "rules": [rule]}]}
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(group), encoding="utf-8")
    tests = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    promtool("test", "rules", "test.yml", cwd=tmp_path)
