"""Processes of their own count and end, as a server's do; what a scrape gives afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from bentoml._internal.server.metrics.prometheus import PrometheusClient
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from runners import metric_files
from runners.bentoml_cures import generate_latest
from tests.conftest import CHECKOUT

COUNTS: Final = """
import sys
from prometheus_client import Counter, Gauge, Histogram, Summary
Counter("asked_total", "-", ["route"]).labels(route="/a").inc(2)
took = Histogram("took_seconds", "-", ["route"], buckets=(1, 2)).labels(route="/a")
took.observe(0.5), took.observe(1.5), took.observe(9)
Summary("size", "-").observe(3)
for mode in ("all", "liveall", "livesum", "livemostrecent", "max"):
    Gauge(f"now_{mode}", "-", multiprocess_mode=mode).set(7)
print("counted", flush=True)
sys.stdin.read()
"""
EACH: Final = {
    "asked_total{'route': '/a'}": 2,
    "took_seconds_bucket{'le': '1.0', 'route': '/a'}": 1,
    "took_seconds_bucket{'le': '2.0', 'route': '/a'}": 2,
    "took_seconds_bucket{'le': '+Inf', 'route': '/a'}": 3,
    "took_seconds_count{'route': '/a'}": 3,
    "took_seconds_sum{'route': '/a'}": 11,
    "size_count{}": 1,
    "size_sum{}": 3,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def counting(folder: Path) -> subprocess.Popen[str]:
    """A process that has counted, and lives until its input ends or it is killed."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTS], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


@pytest.fixture
def living(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = counting(folder)
    yield process
    process.kill()
    process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def scrape() -> list[Metric]:
    client = PrometheusClient()
    try:
        return list(text_string_to_metric_families(generate_latest(client).decode()))
    finally:
        client.multiproc = False  # or it looks for its own process's files when it is collected


def scraped() -> dict[str, float]:
    """Sample → value, without gauges."""
    families = [family for family in scrape() if family.type != "gauge"]
    return {
        f"{sample.name}{dict(sorted(sample.labels.items()))}": sample.value
        for family in families
        for sample in family.samples
    }


def gauges() -> list[dict[str, Any]]:
    families = [family for family in scrape() if family.type == "gauge"]
    return [{"name": sample.name, **sample.labels} for family in families for sample in family.samples]


def test_what_ended_processes_counted_stays_counted_and_their_gauges_go(
    folder: Path, living: subprocess.Popen[str]
) -> None:
    alone = gauges()
    assert len(alone) == 5
    files = set(folder.iterdir())
    for ended in range(1, 4):
        process = counting(folder)
        assert scraped() == {name: value * (ended + 1) for name, value in EACH.items()}
        assert len(gauges()) > len(alone)
        kill(process)
        assert scraped() == {name: value * (ended + 1) for name, value in EACH.items()}
        assert gauges() == alone
        merged = {folder / f"{kind}_ended.db" for kind in ("counter", "histogram", "summary")}
        assert set(folder.iterdir()) == files | merged  # however many have ended


def test_the_last_process_of_all_may_end(folder: Path) -> None:
    kill(counting(folder))
    assert scraped() == EACH
    assert scraped() == EACH
    assert gauges() == []


def test_a_merge_that_was_cut_off_is_done_again(folder: Path) -> None:
    kill(counting(folder))
    (folder / "counter_ended.fresh").write_bytes(b"half of it")
    assert scraped() == EACH
    assert not list(folder.glob("*.fresh"))


def test_scrapes_at_a_time_never_count_anything_twice(folder: Path, living: subprocess.Popen[str]) -> None:
    found: list[dict[str, float]] = []
    stop = threading.Event()

    def scrape_on() -> None:
        while not stop.is_set():
            found.append(scraped())

    processes = [counting(folder) for _ in range(4)]
    expected = scraped()
    threads = [threading.Thread(target=scrape_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for process in processes:
        kill(process)
        enough = len(found) + 6
        while len(found) < enough:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert all(each == expected for each in found)


def test_a_disk_that_takes_nothing_does_not_take_the_metrics_away(
    folder: Path, living: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metric_files, "fold", full)
    assert scraped() == EACH
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize("begun", [True, False])
def test_a_full_disk_takes_no_count_away(folder: Path, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metric_files.LastingDict, "_looked", float("inf"))  # nothing is looked after yet
    place = folder / "counter_1.db"
    if not begun:
        monkeypatch.setattr(os, "posix_fallocate", full)
    values: Any = metric_files.LastingDict(str(place))
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert scrape() == []  # a file without room would be an error
    for number in range(3000):  # more than a file holds at first
        values.write_value(f"key {number} {'x' * 40}", float(number), 0.0)
    assert [value for _, value, _ in values.read_all_values()] == list(range(3000))
    monkeypatch.setattr(metric_files.LastingDict, "_looked", float("-inf"))
    values.write_value("one more", 1.0, 0.0)
    in_file = list(values.read_all_values_from_file(str(place)))
    assert [value for _, value, _, _ in in_file] == [*range(3000), 1]
    values.close()


OWN: Final = """
import sys
from pathlib import Path
from runners.metric_files import own_folder
print(own_folder(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def server(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with a folder of its own, as a server's first one."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, str(parent)], cwd=CHECKOUT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert folder.is_dir()
    return process, folder


def test_each_server_has_a_folder_which_goes_with_it_or_at_the_next_start(tmp_path: Path) -> None:
    parent = tmp_path / "metrics"
    first, of_first = server(parent)
    killed, of_killed = server(parent)
    (of_killed / "counter_1.db").write_bytes(b"counts")
    assert {of_first, of_killed} == set(parent.iterdir())
    kill(killed)
    assert of_killed.is_dir()
    last, of_last = server(parent)
    assert {of_first, of_last} == set(parent.iterdir())
    for process in (first, last):
        process.communicate("")
    assert list(parent.iterdir()) == []


def test_where_no_folder_can_be_made_a_temporary_one_takes_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_text("in the way")
    folder = Path(metric_files.own_folder(tmp_path / "home" / "metrics"))
    assert folder.is_dir()
    assert f"{tmp_path}/home/metrics can't hold the metric files (Not a directory): they are in {folder}" in caplog.text
