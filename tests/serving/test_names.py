"""A resolver that hangs: start and requests of a server do not wait for names, and its end does not for long."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.machine import names_that_hang
from tests.serving.pictures import ROUTES, ask, encoded, plain
from tests.serving.server import serving

pytestmark = pytest.mark.serve

PNG = encoded(plain((1, 2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["embedded", "shared"])
def test_profiles_and_traces_to_names_that_hang_delay_nothing(tmp_path: Path, placement: str) -> None:
    environment = names_that_hang(tmp_path) | {
        "ENRICHMENT_PLACEMENT": placement,
        "PYROSCOPE_ENABLED": "true",
        "PYROSCOPE_URL": "http://pyroscope.invalid:4040",
        "OTEL_BSP_SCHEDULE_DELAY": "500",  # ms between two exports
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector.invalid:4318/v1/traces",
    }
    with serving(tmp_path, environment) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        for route in ROUTES * 2:
            assert ask(client, route, PNG).status_code == 200
        time.sleep(1.5)  # an export is under way
        began = time.monotonic()
        assert ask(client, "/person-reid", PNG).status_code == 200
        assert time.monotonic() - began < 5
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(45)  # OpenTelemetry waits 30 s for what it has begun to send
    assert "Traceback" not in server.log
