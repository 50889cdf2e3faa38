from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.serving.pictures import answer, plain
from tests.serving.server import ROOT, Server


def test_importing_the_service_imports_no_engine(tmp_path: Path) -> None:
    # Every process of the server imports it: the supervisor and the API must stay small and survive a GPU's crash.
    code = "import service, sys; print(sorted({'torch', 'openvino', 'transformers', 'ultralytics'} & set(sys.modules)))"
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
def test_images_reach_the_runner_by_shared_memory(server: Server, client: httpx.Client) -> None:
    answer(client, "/pose-analyze", plain((1, 2, 3)))
    maps = Path(f"/proc/{server.runner_pid()}/maps").read_text(encoding="utf-8")
    assert "/memfd:enrichment-image-" in maps
    assert "not by shared memory" not in server.log
