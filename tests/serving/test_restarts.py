"""/metrics of a server whose processes die and are started anew: nothing stays of the dead but what they counted."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.catalogue import CATALOGUE
from tests.serving.pictures import ROUTES, ask, plain
from tests.serving.server import Server, serving
from tests.serving.test_failures import BACK_S

pytestmark = [pytest.mark.serve, pytest.mark.slow]

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(server: Server) -> tuple[Series, Series]:
    """Sample name and labels → value, of gauges and of everything else."""
    gauges: Series = {}
    counts: Series = {}
    for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics", timeout=10).text):
        for sample in family.samples:
            into = gauges if family.type == "gauge" else counts
            into[sample.name, frozenset(sample.labels.items())] = sample.value
    return gauges, counts


def workers(server: Server) -> dict[str, int]:
    """The processes `api` and `runner`."""
    found = {}
    for process in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which is one of these
            if "_bentoml_impl.worker.service" in process.cmdline():
                found["runner" if "enrichment-runner" in process.cmdline() else "api"] = process.pid
    return found


def requests(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for route in ROUTES:
            assert ask(client, route, plain((1, 2, 3))).status_code == 200


def check(server: Server, folder: Path, before: tuple[Series, Series]) -> tuple[Series, Series]:
    """What is scraped now: only the living have gauges, and nothing that was counted is lost."""
    gauges, counts = scrape(server)
    living = {str(pid) for pid in workers(server).values()}
    assert {value for _, labels in gauges for name, value in labels if name == "pid"} <= living
    assert {each: value for each, value in before[1].items() if counts.get(each, 0) < value} == {}
    ignored = {"pid", "/abandon"}  # the API calls this one only for callers who were let down
    names = {(name, labels) for name, labels in gauges if not ignored & {*dict(labels), *dict(labels).values()}}
    assert {each for each in names if each not in before[0]} == set()
    files = [file.stem.split("_")[-1] for file in (folder / "home" / "prometheus_multiproc_dir").rglob("*.db")]
    assert set(files) <= living | {"ended"}
    assert len(files) <= 6 * len(living) + 3
    return gauges, counts


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def test_nothing_stays_of_processes_that_died_but_what_they_counted(tmp_path: Path) -> None:
    with serving(tmp_path, {"ENRICHMENT_PLACEMENT": "shared"}) as server:
        requests(server)
        server.health()  # each path that is asked for later has its series now
        time.sleep(1.5)  # a heartbeat
        before = scrape(server)
        for killed in (1, 2):
            os.kill(server.runner_pid(), signal.SIGKILL)
            server.wait(lambda: server.health().status_code == 503, "gone", 5)
            server.wait(server.is_ready, "back", BACK_S)
            requests(server)
            before = check(server, tmp_path, before)
            assert value(before[0], "enrichment_light_runner_restarts", runner="enrichment-runner") == killed

        api = workers(server)["api"]
        os.kill(api, signal.SIGKILL)
        server.wait(lambda: workers(server).get("api", api) != api and server.is_ready(), "an API again", BACK_S)
        requests(server)
        gauges, counts = check(server, tmp_path, before)
        assert value(gauges, "enrichment_light_runner_restarts", runner="enrichment-runner") == 0  # of this API's time
        for name, spec in CATALOGUE.items():
            assert value(gauges, "enrichment_light_model_loaded", model=name) == 1
            answered = {"endpoint": spec.route, "status": "200"}
            assert value(counts, "enrichment_light_inference_requests_total", **answered) == 4
