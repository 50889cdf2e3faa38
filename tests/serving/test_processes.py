from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.serving.server import FAKE, ROOT, START_S, Server, serving


def test_importing_the_service_imports_no_engine(tmp_path: Path) -> None:
    # Every process of the server imports it: the supervisor and the API must stay small and survive a GPU's crash.
    # Nor may it import what opens pickles.
    engines = {"torch", "openvino", "transformers", "ultralytics", "importing.workshop", "importing.loaders"}
    code = f"import service, sys; print(sorted({engines} & set(sys.modules)))"
    started = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BENTOML_HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout.splitlines()[-1] == "[]"


@pytest.mark.serve
def test_no_runner_process_is_started_that_others_could_reach(tmp_path: Path) -> None:
    # BentoML's runners unpickle what they get, and without unix sockets they listen on a port.
    environment = {"ENRICHMENT_PLACEMENT": "shared", "BENTOML_NO_UDS": "1"}
    server = Server(tmp_path, environment, FAKE, ROOT)
    try:
        assert server.process.wait(START_S) != 0
        assert "any user of this machine could run code in the runner process" in server.log
    finally:
        server.stop()


@pytest.mark.serve
def test_the_api_alone_listens_on_a_port(tmp_path: Path) -> None:
    with serving(tmp_path, {"BENTOML_NO_UDS": "1"}) as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        listening = {
            connection.laddr
            for process in [psutil.Process(server.process.pid), *family]
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {server.address}  # Circus', by which others could start programs, are cured
        workers = [process for process in family if "_bentoml_impl.worker.service" in process.cmdline()]
        assert len(workers) == 1


@pytest.mark.serve
def test_all_processes_share_as_many_arenas_as_there_are_cores(server: Server, shared_server: Server) -> None:
    for serving_one in (server, shared_server):
        family = psutil.Process(serving_one.process.pid).children(recursive=True)
        found = {process.environ()["MALLOC_ARENA_MAX"] for process in family}
        assert found == {str(len(os.sched_getaffinity(0)))}
