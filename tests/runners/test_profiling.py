"""Pyroscope's own client against a server of ours that takes what it sends."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runners import profiling
from runners.profiling import Profiler
from settings import Pyroscope
from tests.serving.server import serving


class Sink:
    """A Pyroscope that keeps what it is sent."""

    def __init__(self, port: int = 0) -> None:
        received: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                received.append(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.received = received
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __contains__(self, text: bytes) -> bool:
        return any(text in body for body in self.received)


@pytest.fixture
def sink() -> Iterator[Sink]:
    running = Sink()
    yield running
    running.server.shutdown()


def settings(port: int, *, enabled: bool = True) -> Pyroscope:
    fields = {"enabled": enabled, "url": f"http://127.0.0.1:{port}", "application_name": "ai-enrichment-light"}
    return Pyroscope.model_validate(fields)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_a_server_that_can_not_be_reached_costs_nothing_and_is_said_once(
    closed_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "RETRY_S", 0.05)
    go, connect = threading.Event(), socket.create_connection

    def connect_late(*arguments: Any, **options: Any) -> socket.socket:
        assert go.wait(10)
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", connect_late)
    began = time.perf_counter()
    profiler = Profiler(settings(closed_port), "runner")
    assert time.perf_counter() - began < 5  # it does not wait
    with profiler.tagged(model="pose_estimator", engine="torch"):
        go.set()
        while not caplog.records:
            assert time.perf_counter() - began < 10
            time.sleep(0.01)
        time.sleep(0.3)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"Pyroscope at http://127.0.0.1:{closed_port}/ can't be reached" in caplog.text


def test_switched_off_it_does_not_even_try(sink: Sink) -> None:
    threads = threading.active_count()
    profiler = Profiler(settings(sink.port, enabled=False), "runner")
    assert threading.active_count() == threads
    with profiler.tagged(model="pose_estimator"):
        pass


@pytest.mark.slow
@pytest.mark.serve
def test_models_and_engines_are_tags_of_what_the_official_client_sends(sink: Sink, tmp_path: Path) -> None:
    import httpx

    from tests.serving import fake
    from tests.serving.pictures import ask, plain

    environment = {
        "PYROSCOPE_ENABLED": "true",
        "PYROSCOPE_URL": f"http://127.0.0.1:{sink.port}",
        "SERVICE_NAME": "lights-of-the-house",
        "ENRICHMENT_PLACEMENT": "shared",
    }
    with serving(tmp_path, environment) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        server.wait(lambda: server.log.count("profiling to Pyroscope") == 2, "profiling", 20)  # API and runner
        end = time.monotonic() + 40
        while not all(text in sink for text in (b"person_reid", b"openvino", b"lights-of-the-house", b"runner")):
            assert time.monotonic() < end, [body[:300] for body in sink.received]
            assert ask(client, "/person-reid", plain(fake.busy(0.2))).status_code == 200


@pytest.mark.slow
@pytest.mark.serve
def test_a_start_is_as_quick_without_a_server(tmp_path: Path) -> None:
    environment = {"PYROSCOPE_ENABLED": "true", "PYROSCOPE_URL": "http://pyroscope.invalid:4040"}
    with serving(tmp_path, environment) as server:
        assert "no profiling: Pyroscope at" in server.log
        assert server.health().json()["status"] == "healthy"
