"""`make run`'s server and its hints, over a server that is not started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from models.catalogue import CATALOGUE
from settings import DEFAULT_FILE, get_settings, load
from tools import trial
from tools.image import ROOT


class Server:
    """Stands in for a started process. answers: after so many tries. ends: its exit code, from the beginning."""

    def __init__(self, answers: int | None = 0, ends: int | None = None) -> None:
        self.answers, self.code = answers, ends
        self.tries = 0
        self.command: list[str] = []
        self.environment: dict[str, str] = {}
        self.signals: list[int] = []
        self.handlers: dict[int, Callable[[int, object], object]] = {}

    def start(self, command: list[str], env: dict[str, str]) -> Server:
        self.command, self.environment = command, env
        return self

    def opener(self, handler: urllib.request.ProxyHandler) -> Server:
        assert vars(handler)["proxies"] == {}  # a proxy of the environment does not reach this machine's port
        return self

    def open(self, url: str, timeout: float) -> Any:
        self.tries += 1
        assert url.endswith("/readyz")
        if self.answers is None or self.tries <= self.answers:
            raise urllib.error.URLError("connection refused")
        return nullcontext()

    def poll(self) -> int | None:
        return self.code

    def wait(self) -> int:
        return 7 if self.code is None else self.code

    def terminate(self) -> None:
        self.signals.append(signal.SIGTERM)

    def send_signal(self, signum: int) -> None:
        self.signals.append(signum)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], int]:
    def start(server: Server) -> int:
        monkeypatch.setattr(subprocess, "Popen", server.start)
        monkeypatch.setattr(urllib.request, "build_opener", server.opener)
        monkeypatch.setattr(signal, "signal", server.handlers.__setitem__)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        monkeypatch.setattr(trial, "try_address", lambda *_: None)
        return trial.main()

    return start


def test_a_ready_server_is_shown_with_a_request_for_each_model(
    run: Callable[[Server], int], capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(answers=3)
    assert run(server) == 7  # the server's own exit code
    assert server.tries == 4
    assert server.command[-2:] == ["serve", "service:EnrichmentLight"]
    assert server.environment == {**os.environ, "ENRICHMENT_ALLOW_UNTRAINED": "true"}
    hints = capsys.readouterr().out
    url = f"http://127.0.0.1:{get_settings().server.port}"
    assert all(f" {url}{spec.route}\n" in hints for spec in CATALOGUE.values())
    picture = hints.split("image=@")[1].split()[0]
    assert Path(picture).is_file()
    assert server.signals == []


@pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("0.0.0.0", True), ("::", True)])
def test_it_says_what_it_means_to_listen_on_the_network(
    run: Callable[[Server], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    exposed: bool,
) -> None:
    monkeypatch.setattr(trial, "get_settings", lambda: load(DEFAULT_FILE, {"HOST": host}))
    run(Server())
    assert ("THE SERVICE LISTENS ON THE NETWORK" in capsys.readouterr().out) is exposed


@pytest.mark.parametrize(
    ("options", "environment", "host"),
    [
        ([], {}, "127.0.0.1"),
        (["LAN=1"], {}, "0.0.0.0"),
        ([], {"LAN": "1"}, "0.0.0.0"),
        (["LAN=0"], {}, "127.0.0.1"),
        ([], {"HOST": "192.168.1.20"}, "192.168.1.20"),
        (["HOST=::1"], {}, "::1"),
    ],
)
def test_make_run_listens_on_the_network_only_if_asked(
    options: list[str], environment: dict[str, str], host: str, tmp_path: Path
) -> None:
    """The real Makefile, with a program that prints HOST in the place of Python."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$2 on $HOST"\n')
    python.chmod(0o755)
    (tmp_path / ".installed").touch()
    clean = {key: value for key, value in os.environ.items() if key not in {"HOST", "LAN", "MAKEFLAGS"}}
    command = ["make", "--no-print-directory", "run", f"VENV={tmp_path}", "--old-file", f"{tmp_path}/.installed"]
    said = subprocess.run(
        [*command, *options], cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines() == [f"models.import_models on {host}", f"tools.trial on {host}"]


def test_signals_are_passed_on_to_the_server(run: Callable[[Server], int]) -> None:
    server = Server()
    run(server)
    for signum in (signal.SIGINT, signal.SIGTERM):
        server.handlers[signum](signum, None)
    assert server.signals == [signal.SIGINT, signal.SIGTERM]


def test_a_server_that_ends_before_it_is_ready_is_not_waited_for(
    run: Callable[[Server], int], capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(answers=None, ends=3)
    assert run(server) == 3
    assert server.tries == 0
    assert "Try it" not in capsys.readouterr().out
    assert server.signals == []


def test_a_server_that_does_not_become_ready_is_ended(
    run: Callable[[Server], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_READY_TIMEOUT_S", 0.01)
    server = Server(answers=None)
    assert run(server) == 1
    captured = capsys.readouterr()
    assert "did not become ready within 0.01 s" in captured.err
    assert "Try it" not in captured.out
    assert server.signals == [signal.SIGTERM]
