from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.serving.server import ROOT


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
