"""Real servers over the fake engine, in processes of their own, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import yaml

from benchmarks.serving import free_port
from models.catalogue import CATALOGUE, ModelName
from settings import DEFAULT_FILE, SERVICE_NAME

ROOT: Final = DEFAULT_FILE.parent
START_S: Final = 400  # a start takes about 7 s of an idle machine, with real weights 20
FAKE: Final = "tests.serving.fake_service:EnrichmentLight"
REAL: Final = "service:EnrichmentLight"
#: For starts with real weights: warm-up runs each batch size, and two are the fewest that the settings take.
SMALL_BATCHES: Final = {f"ENRICHMENT_{spec.short_name}_MAX_BATCH_SIZE".upper(): "2" for spec in CATALOGUE.values()}
_UP: Final = re.compile(r"the runner (\S+) is up \(process (\d+)\)")


def configuration(folder: Path, change: Mapping[str, Any]) -> Path:
    """configuration.yaml with dotted keys below `enrichment` changed, as a file in `folder`."""
    tree = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
    for path, value in change.items():
        *parents, last = path.split(".")
        section = tree["services"][SERVICE_NAME]["enrichment"]
        for parent in parents:
            section = section[parent]
        section[last] = value
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


class Server:
    """A running `bentoml serve`; its `folder` holds BENTOML_HOME and the log."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], service: str, cwd: Path, within: Sequence[str] = ()
    ) -> None:
        """within: a command that runs the one after it."""
        self.log_file = folder / "log"
        port = free_port()
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        ours = ("ENRICHMENT_", "BENTOML_", "FAKE_", "PROMETHEUS_", "PYROSCOPE_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        own = {
            "BENTOML_HOME": str(folder / "home"),
            "BENTOML_DO_NOT_TRACK": "True",
            "HOST": "127.0.0.1",
            "PYROSCOPE_ENABLED": "false",
            "PORT": str(port),
        }
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "bentoml", "serve", service],
                cwd=cwd,
                env=inherited | own | dict(environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def runner_pid(self, name: str = "enrichment-runner") -> int:
        """The process of a runner, as the API found it last."""
        return [int(pid) for found, pid in _UP.findall(self.log) if found == name][-1]

    def memory(self) -> int:
        """Resident bytes of all its processes."""
        family = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in [family, *family.children(recursive=True)])

    def health(self) -> httpx.Response:
        return httpx.get(f"{self.url}/health", timeout=30)

    def model(self, name: ModelName) -> dict[str, Any]:
        """What /health says of a model."""
        status: dict[str, Any] = self.health().json()["models"][name]
        return status

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = START_S) -> None:
        """Wait until `condition`; fails with the server's log if it takes over `seconds` or the server ends."""
        end = time.monotonic() + seconds

        def holds() -> bool:
            with contextlib.suppress(httpx.TimeoutException):  # of a busy machine
                return condition()
            return False

        while not holds():
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log}")
            if time.monotonic() > end:
                raise AssertionError(f"not {what} after {seconds:g} s:\n{self.log[-5000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End the server and whatever it started by SIGKILL."""
        family = psutil.Process(self.process.pid)
        for process in [*family.children(recursive=True), family]:
            process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the server and whatever it started."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in family:  # each is the head of a process group of its own
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(
    folder: Path, environment: Mapping[str, str], service: str = FAKE, cwd: Path = ROOT, within: Sequence[str] = ()
) -> Iterator[Server]:
    """A server that is ready, for as long as the block runs."""
    server = Server(folder, environment, service, cwd, within)
    try:
        server.wait(server.is_ready, "ready")
        yield server
    finally:
        server.stop()
