"""How long does a server take until it is ready? Starts it on a free port of 127.0.0.1 and keeps its log."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

_START_S: Final = 300.0
_POLL_S: Final = 0.02


@dataclass(frozen=True)
class Serving:
    """A ready server. seconds: path → time from the start until it answered 200."""

    url: str
    pid: int
    seconds: dict[str, float]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")


@contextmanager
def serving(
    module: Sequence[str] = ("bentoml", "serve", "service:EnrichmentLight"),
    paths: Sequence[str] = ("/livez", "/health", "/readyz"),
    **environment: str,
) -> Iterator[Serving]:
    """Run `python -m module`, by default the service, while the block runs.

    environment: variables beside HOST and PORT. Waits until all `paths` answer 200. Raises RuntimeError with the log if
    they don't.
    """
    port = free_port()
    own = {"HOST": "127.0.0.1", "PORT": str(port), "PYROSCOPE_ENABLED": "false"}
    command = [sys.executable, "-m", *module]
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | own | environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            seconds = _wait(process, url, paths, began)
            if len(seconds) < len(paths):
                raise RuntimeError(f"the server did not become ready:\n{Path(log.name).read_text()[-3000:]}")
            yield Serving(url, process.pid, seconds, Path(log.name))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


_candidates = itertools.cycle(random.sample(range(10_000, 30_000), 20_000))


def free_port() -> int:
    """A free port of 127.0.0.1, below those that the system gives to others before a server has bound it."""
    while True:
        port = next(_candidates)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port


def _wait(process: subprocess.Popen[bytes], url: str, paths: Sequence[str], began: float) -> dict[str, float]:
    seconds: dict[str, float] = {}
    with httpx.Client(base_url=url, timeout=5) as client:
        while len(seconds) < len(paths) and process.poll() is None and time.perf_counter() - began < _START_S:
            for path in paths:
                if path not in seconds and _answers_200(client, path):
                    seconds[path] = time.perf_counter() - began
            time.sleep(_POLL_S)
    return seconds


def _answers_200(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.HTTPError:
        return False
