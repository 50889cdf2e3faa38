"""The short form of `make fuzz`, and every finding of the past: tests/fuzz/corpus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from api.request import Received
from tests.fuzz import containers, mutator, over_http, parsers, pictures, run
from tests.serving.server import Server, serving
from tests.vision.decoding.made import decode
from tests.vision.decoding.test_damage import fuzz_seeds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), {}) as running:
        yield running


def test_a_file_taken_apart_is_put_together_again() -> None:
    for data in fuzz_seeds():
        again = containers.join(data, containers.split(data))
        assert (decode(again, pictures.LIMITS) == decode(data, pictures.LIMITS)).all()


def test_a_number_makes_the_same_case_every_time() -> None:
    cases = [mutator.case(pictures.seeds(), number) for number in range(50)]
    assert cases == [mutator.case(pictures.seeds(), number) for number in range(50)]
    assert len(set(cases)) == 50


def test_changed_pictures_are_decoded_or_refused() -> None:
    outcomes = run.run_pictures(range(300))
    assert outcomes["decoded"] > 30
    assert outcomes["DamagedImage"] > 30


def test_requests_are_read_or_refused() -> None:
    outcomes = run.run_bodies(number=0, cases=200)
    assert outcomes["accepted"] > 10


def test_people_as_no_body_has_them_are_judged() -> None:
    assert run.run_postures(number=0, cases=100).total() >= 100


@pytest.mark.parametrize("file", sorted(run.CORPUS.iterdir()), ids=lambda file: file.name)
def test_a_finding_of_the_past_stays_mended(file: Path) -> None:
    data = file.read_bytes()
    if file.suffix not in {".json", ".form"}:
        pictures.check(data)
        return
    content_type, _, body = data.partition(b"\n") if file.suffix == ".form" else (b"application/json", b"", data)
    for parser in parsers.PARSERS:
        parsers.check(parser, Received(content_type.decode("latin-1"), body, {}))


@pytest.mark.serve
async def test_a_server_answers_all_cases_without_a_fault(server: Server) -> None:
    await over_http.run(server.url, range(200))  # what libraries keep is not lost
    time.sleep(1)
    before = server.memory()
    quiet_s = median(health_seconds(server) for _ in range(20))  # of this machine, which others may keep busy
    outcome = await over_http.run(server.url, range(200))
    assert outcome.statuses[200] > 10
    assert median(outcome.refused_s) < 0.25 + 20 * quiet_s
    assert median(outcome.health_s) < 0.1 + 10 * quiet_s
    assert server.memory() - before < 100e6  # `make fuzz` shows it flat after a few rounds: the first keep arenas


def health_seconds(server: Server) -> float:
    began = time.perf_counter()
    assert server.health().status_code == 200
    return time.perf_counter() - began
