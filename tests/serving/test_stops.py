"""A server that is told to end while many callers ask it."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.serving.callers import ANSWERED, OVERLOADED, REFUSED, Callers
from tests.serving.server import serving

pytestmark = [pytest.mark.serve, pytest.mark.slow]

CALLERS = 40


@pytest.mark.parametrize("placement", ["embedded", "shared", "isolated"])
async def test_every_caller_is_answered_or_refused_and_none_is_cut_off(
    tmp_path: Path, placement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path, {"ENRICHMENT_PLACEMENT": placement}) as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        callers = Callers(server.url, CALLERS, until_refused=True)
        await callers.answers(CALLERS, 60)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await callers.refused(60)
        counts = callers.since(told)
        with capsys.disabled():
            print(f"\n{placement} | SIGTERM | {dict(counts)}")  # noqa: T201
        assert set(counts) <= {ANSWERED, OVERLOADED, REFUSED}
        assert counts[REFUSED] == CALLERS
        assert counts[ANSWERED] > 0
        assert await asyncio.to_thread(server.process.wait, 40) == 0
        assert psutil.wait_procs(family, timeout=5)[1] == []
