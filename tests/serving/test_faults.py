"""Faults of the machine below a server: few descriptors, folders that vanish."""

from __future__ import annotations

import resource
import shutil
import socket
import time
from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from tests.serving.pictures import ROUTES, ask, encoded, plain
from tests.serving.server import FAKE, ROOT, Server
from tests.serving.test_restarts import scrape

pytestmark = pytest.mark.serve

PNG: Final = encoded(plain((1, 2, 3)))
DESCRIPTORS: Final = 64


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may open 64 descriptors in each of its processes."""
    server = Server(tmp_path_factory.mktemp("narrow"), {}, FAKE, ROOT)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))  # before it starts others
    try:
        server.wait(server.is_ready, "ready")
        yield server
    finally:
        server.stop()


@pytest.mark.slow
def test_more_connections_than_descriptors_are_survived(narrow: Server) -> None:
    held = [socket.create_connection(narrow.address, timeout=5) for _ in range(2 * DESCRIPTORS)]
    time.sleep(0.5)
    for connection in held:
        connection.close()
    narrow.wait(narrow.is_ready, "ready again", 10)
    with httpx.Client(base_url=narrow.url, timeout=30) as client:
        assert [ask(client, route, PNG).status_code for route in ROUTES] == [200] * len(ROUTES)


def test_a_metrics_folder_that_vanishes_comes_back_and_nothing_counted_is_lost(narrow: Server) -> None:
    folder = narrow.log_file.parent / "home" / "prometheus_multiproc_dir"
    with httpx.Client(base_url=narrow.url, timeout=30) as client:
        assert ask(client, "/person-reid", PNG).status_code == 200
        time.sleep(1.5)  # a heartbeat
        gauges, counts = scrape(narrow)
        shutil.rmtree(folder.rename(folder.with_name("gone")))  # at once: a heartbeat may be writing into it
        # Each of these opens a file or a label that was not there before.
        assert client.get("/models/nobody").status_code == 404
        assert ask(client, "/person-reid", b"no image").status_code == 400
        assert ask(client, "/enrich", PNG).status_code == 200
        assert client.get("/metrics").status_code == 200
        narrow.wait(lambda: gauges.keys() <= scrape(narrow)[0].keys(), "back", 30)  # every process has looked
        _, new_counts = scrape(narrow)
    assert {each: value for each, value in counts.items() if new_counts.get(each, 0) < value} == {}
