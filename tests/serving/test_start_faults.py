"""Starts under faults: a taken port, a second server on one BENTOML_HOME, what a dead one left."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving.pictures import ask, encoded, plain
from tests.serving.server import FAKE, ROOT, START_S, Server, serving
from tests.serving.test_restarts import scrape

pytestmark = pytest.mark.serve

PNG = encoded(plain((1, 2, 3)))


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("placement", ["embedded", "shared"])
def test_a_taken_port_ends_the_start_with_a_sentence(tmp_path: Path, taken: int, placement: str) -> None:
    environment = {"PORT": str(taken), "ENRICHMENT_PLACEMENT": placement}
    server = Server(tmp_path, environment, FAKE, ROOT)
    try:
        assert server.process.wait(START_S) == 1
    finally:
        server.stop()
    assert f"can't start: it can't listen on port {taken} of 127.0.0.1: another program listens there" in server.log
    assert "Traceback" not in server.log
    assert list((tmp_path / "home" / "prometheus_multiproc_dir").iterdir()) == []


def test_an_address_that_the_machine_does_not_have_is_named(tmp_path: Path) -> None:
    server = Server(tmp_path, {"HOST": "192.0.2.7"}, FAKE, ROOT)
    try:
        assert server.process.wait(START_S) == 1
    finally:
        server.stop()
    assert "of 192.0.2.7: this machine has no such address" in server.log
    assert "Traceback" not in server.log


def test_a_trial_does_not_take_another_server_for_its_own(taken: int) -> None:
    environment = {"PORT": str(taken), "HOST": "127.0.0.1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "tools.trial"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=START_S, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"it can't listen on port {taken} of 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def answered(server: Server) -> float:
    """The requests to /person-reid that /metrics counts."""
    _, counts = scrape(server)
    labels = frozenset({"endpoint": "/person-reid", "status": "200"}.items())
    return counts["enrichment_light_inference_requests_total", labels]


def ask_often(server: Server, times: int) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert {ask(client, "/person-reid", PNG).status_code for _ in range(times)} == {200}


@pytest.mark.slow
def test_servers_that_share_a_home_count_for_themselves_and_clear_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folders = home / "prometheus_multiproc_dir"
    places = [tmp_path / name for name in ("first", "second", "third")]
    for place in places:
        place.mkdir()
    environment = {"BENTOML_HOME": str(home)}
    with serving(places[0], environment) as first:
        ask_often(first, 3)
        (of_first,) = folders.iterdir()
        with serving(places[1], environment) as second:
            ask_often(second, 2)
            assert (answered(first), answered(second)) == (3, 2)
            assert len(list(folders.iterdir())) == 2
            second.kill()
        assert (answered(first), len(list(folders.iterdir()))) == (3, 2)  # nobody was there to clear up
        with serving(places[2], environment) as third:
            assert answered(third) == 0
            (of_third,) = set(folders.iterdir()) - {of_first}
            ask_often(first, 1)
            assert answered(first) == 4
        assert list(folders.iterdir()) == [of_first]
        first.process.send_signal(signal.SIGTERM)
        first.process.wait(30)
    assert list(folders.iterdir()) == []
    assert of_third != of_first
