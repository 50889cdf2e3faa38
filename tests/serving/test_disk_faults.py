"""Servers on disks that are full or read-only, and without shared memory: all answer, and no count is lost."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.machine import NO_SHARED_MEMORY, full, read_only, small, within
from tests.serving.pictures import ROUTES, ask, encoded, plain
from tests.serving.server import Server, serving
from tests.serving.test_restarts import scrape

pytestmark = pytest.mark.serve

PNG = encoded(plain((1, 2, 3)))


def check_answers(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert [ask(client, route, PNG).status_code for route in ROUTES] == [200] * len(ROUTES)
        assert client.get("/health").json()["status"] == "healthy"
        assert client.get("/metrics").status_code == 200
    assert "Traceback" not in server.log


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A BENTOML_HOME with the folders that BentoML makes at its first start, for which it needs a disk to write to."""
    folder = tmp_path / "home"
    for name in ("bentos", "envs", "models", "tmp"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_no_request_and_no_count(tmp_path: Path, home: Path) -> None:
    with serving(tmp_path, {}, within=within(small(home, 2048))) as server:
        inside = Path(f"/proc/{server.process.pid}/root{home}")
        check_answers(server)
        filler = inside / "filler"
        filler.touch()
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(2**21))
        with httpx.Client(base_url=server.url, timeout=30) as client:
            # Each status of a route has labels of its own, which need room.
            for route in ROUTES:
                assert ask(client, route, b"no image").status_code == 400
                assert client.post(route, json={}).status_code == 422
                assert client.post(route, content=b"x", headers={"content-type": "text/plain"}).status_code == 415
                assert ask(client, f"{route}-nowhere", PNG).status_code == 404
        assert "values are kept in memory" in server.log
        check_answers(server)
        _, before = scrape(server)
        filler.unlink()
        check_answers(server)
        server.wait(lambda: "made anew" in server.log, "on the disk again", 10)
        _, after = scrape(server)
        assert {each: value for each, value in before.items() if after.get(each, 0) < value} == {}


@pytest.mark.parametrize(
    ("fault", "placement"),
    [
        ("full home", "shared"),
        pytest.param("read-only home", "embedded", marks=pytest.mark.slow),
        pytest.param("read-only root", "shared", marks=pytest.mark.slow),
        pytest.param("no shared memory", "embedded", marks=pytest.mark.slow),
        pytest.param("no shared memory", "shared", marks=pytest.mark.slow),
    ],
)
def test_a_server_starts_and_answers_on_such_a_machine(tmp_path: Path, home: Path, fault: str, placement: str) -> None:
    commands = {
        "full home": (full(home),),
        "read-only home": (read_only(home),),
        "read-only root": ("mount -o remount,bind,ro /", "mount -t tmpfs tmpfs /tmp", "mkdir /tmp/home"),
        "no shared memory": (NO_SHARED_MEMORY,),
    }
    environment = {"ENRICHMENT_PLACEMENT": placement}
    if fault == "read-only root":
        environment |= {"TMPDIR": "/tmp", "BENTOML_HOME": "/tmp/home"}
    with serving(tmp_path, environment, within=within(*commands[fault])) as server:
        check_answers(server)
