from __future__ import annotations

import os
import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def quiet_libraries(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the libraries from the network and out of the user's home, as importing.workshop does."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    os.environ |= {
        "MPLCONFIGDIR": str(tmp_path_factory.mktemp("matplotlib")),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "HF_HUB_OFFLINE": "1",
    }
