"""The dashboard: each query has data from a live service, and each panel says what it shows and what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from benchmarks.serving import free_port
from tests.serving.fake import RAISES
from tests.serving.pictures import ROUTES, ask, plain
from tests.serving.server import ROOT, Server, serving
from tests.serving.test_metrics import samples
from tools import draw_dashboard

FILE: Final = ROOT / "deploy" / "grafana" / "ai-enrichment-light.json"
OF_PROMETHEUS: Final = {"up"}
JOB: Final = "ai-enrichment-light"
# What is no name of a metric in PromQL: strings, labels, durations, what is grouped or matched by.
_OTHER: Final = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)'
)
_NAME: Final = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
_OPERATORS: Final = {"and", "or", "unless", "offset", "bool", "Inf", "NaN"}
_VALUES_OF: Final = re.compile(r"label_values\((.+), (\w+)\)")


def metrics(query: str) -> set[str]:
    """The names of the metrics in a PromQL query."""
    return set(_NAME.findall(_OTHER.sub(" ", query))) - _OPERATORS


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def targets() -> list[dict[str, Any]]:
    return [target for panel in panels() for target in panel["targets"]]


def variables() -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard()["templating"]["list"]}


def queries() -> list[str]:
    """Of panels and of variables, the latter as the selector whose label is asked for."""
    lists = [variable["query"]["query"] for variable in variables().values() if variable["type"] == "query"]
    return [target["expr"] for target in targets()] + [_VALUES_OF.sub(r"\1", query) for query in lists]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), {"ENRICHMENT_MEMORY_BUDGET_MB": "4000"}) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as open_client:
        yield open_client


@pytest.fixture
def prometheus(server: Server, tmp_path: Path) -> Iterator[httpx.Client]:
    """A real Prometheus that scrapes the server each second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    host, port = server.address
    job = {"job_name": JOB, "scrape_interval": "1s", "static_configs": [{"targets": [f"{host}:{port}"]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10) as asking:
            server.wait(lambda: bool(answered(asking, f'up{{job="{JOB}"}} == 1')), "scraped", 30)
            yield asking
    finally:
        process.terminate()
        process.wait(20)


def answered(prometheus: httpx.Client, query: str) -> list[dict[str, str]]:
    """The labels of what a query gives now; nothing while Prometheus is not there yet."""
    try:
        response = prometheus.get("/api/v1/query", params={"query": query})
    except httpx.ConnectError:
        return []
    if response.status_code == 503:
        return []
    assert response.status_code == 200, response.text
    return [each["metric"] for each in response.json()["data"]["result"] if each["value"][1] != "NaN"]


def test_each_panel_says_what_it_shows_in_which_unit_and_what_to_do() -> None:
    for panel in panels():
        assert panel["title"]
        assert len(panel["description"]) > 80, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
    assert len({panel["title"] for panel in panels()}) == len(panels())


def test_no_two_panels_share_an_id_or_a_place() -> None:
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    places = [[panel["gridPos"][key] for key in "xywh"] for panel in everything]
    for x, _, w, h in places:
        assert 0 <= x < x + w <= 24
        assert h > 0
    for (x, y, w, h), (x2, y2, w2, h2) in combinations(places, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_it_asks_the_chosen_prometheus_about_the_chosen_instance() -> None:
    assert (variables()["datasource"]["type"], variables()["datasource"]["query"]) == ("datasource", "prometheus")
    for each in [*panels(), *targets(), variables()["job"], variables()["instance"]]:
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in targets():
        selectors = re.findall(r"\{([^}]*)\}", target["expr"])
        assert selectors
        assert all(selector.startswith('job="$job",instance="$instance"') for selector in selectors)


def test_its_job_is_the_one_of_the_scrape_configuration() -> None:
    scraping = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    assert variables()["job"]["current"]["value"] == JOB
    assert f"job_name: {JOB}\n" in scraping


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('sum by (le, a) (rate(one_bucket{a="two"}[5m])) > 0', {"one_bucket"}),
        ('(sum(rate(one{a=~"b.."}[$__rate_interval])) or vector(0)) / on (two) three', {"one", "three"}),
        ("8 + up unless misspelt offset 5m", {"up", "misspelt"}),
    ],
)
def test_the_metrics_of_a_query_are_found(query: str, expected: set[str]) -> None:
    assert metrics(query) == expected


def test_the_processes_are_told_apart_by_what_is_theirs_in_an_image_too() -> None:
    # There `service_name` is the bento's in every process, and the runner's would be counted as the API's.
    assert not [query for query in queries() if "service_name" in query]


@pytest.mark.serve
def test_every_metric_of_the_queries_is_exposed(client: httpx.Client) -> None:
    for route in ROUTES:
        assert ask(client, route, plain((1, 2, 3))).status_code == 200
    asked = set().union(*map(metrics, queries()))
    assert len(asked) > 10
    assert asked - OF_PROMETHEUS - set(samples(client, "")) == set()


def test_prometheus_itself_takes_the_queries(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    names = {"job": JOB, "instance": "ai-enrichment-light:8096", "__rate_interval": "1m"}
    rules = [
        {"record": f"query_{number}", "expr": draw_dashboard.substituted(query, names)}
        for number, query in enumerate(queries())
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    command = [promtool, "check", "rules", "rules.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.serve
def test_every_query_has_data_with_the_labels_of_its_legend(
    server: Server, client: httpx.Client, prometheus: httpx.Client, tmp_path: Path
) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        for route in ROUTES:
            assert ask(client, route, plain((1, 2, 3))).status_code == 200
        assert ask(client, ROUTES[0], plain(RAISES)).status_code == 500
        assert client.post(ROUTES[1], json={}).status_code == 422
        time.sleep(0.5)
    values = {"job": JOB, "instance": server.url.removeprefix("http://"), "__rate_interval": "10s"}
    for target in targets():
        found = answered(prometheus, draw_dashboard.substituted(target["expr"], values))
        assert found, target["expr"]
        labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert all(labels <= set(each) for each in found), (target["expr"], found)
        if labels == {"endpoint"}:
            # The routes that nobody asked have a rate of 0.
            assert {each["endpoint"] for each in found} >= set(ROUTES), target["expr"]
    draw_dashboard.main(str(prometheus.base_url), "1", str(tmp_path / "drawn.png"))
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
