"""The soak: that its calls reach every route, that it judges what it saw, and that a short one runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from benchmarks import calls
from benchmarks.calls import Call
from benchmarks.endurance import Load, Outcome
from tests.serving.server import FAKE, ROOT, serving

SECONDS = 100.0
CHANGES = re.compile(r"/models/(preload|unload-all|.*/(load|unload))")  # off by default, and no analysis


@pytest.mark.serve
def test_every_route_is_in_the_mix(tmp_path: Path) -> None:
    with serving(tmp_path, {"ENRICHMENT_DEEPSTACK": "true"}) as server:
        paths: dict[str, dict[str, Any]] = httpx.get(f"{server.url}/openapi.json").raise_for_status().json()["paths"]
    embedding = {"embedding": [1.0] * 512, "model_id": "a"}
    sent = {(call.method, call.path.partition("?")[0]) for call in calls.right([b"picture"], [embedding])}
    for path, methods in paths.items():
        if not CHANGES.fullmatch(path):
            template = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
            asked = {method for method, sent_path in sent if template.fullmatch(sent_path)}
            assert {method.upper() for method in methods} <= asked, path


def outcome(**changes: Any) -> Outcome:
    """Calls of equal latency throughout, at 8 and at 32."""
    steady = [(float(second), 0.5) for second in range(int(SECONDS))]
    return Outcome(**{"latencies": {8: steady, 32: steady}, "canaries": [None] * 9, **changes})


def test_a_good_soak_has_no_faults() -> None:
    assert outcome().faults(SECONDS) == []
    assert outcome(refused={429: 3}, canaries=[None, "refused"]).faults(SECONDS) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"wrong": ["/a: 500"]}, "1 wrong"),
        ({"lost": ["/a: reset", "/b: reset"]}, "2 lost"),
        ({"canaries": [None, "/person-reid: 500"]}, "1 canaries at fault"),
        ({"latencies": {32: [(second, 1 + second / SECONDS) for second in range(100)]}}, "p99 at 32: 1.61 ×"),
    ],
)
def test_each_criterion_that_fails_is_named(changes: dict[str, Any], fault: str) -> None:
    (found,) = outcome(**changes).faults(SECONDS)
    assert found.startswith(fault)


def test_only_the_first_and_the_last_quarter_are_compared() -> None:
    hump = [(float(second), 9.0 if 25 <= second < 75 else 1.0) for second in range(100)]
    assert outcome(latencies={8: hump}).faults(SECONDS) == []


WHOLE = b'{"score":0.5,"first":{"person_in_view":null},"second":{"person_in_view":false}}'
LEFT_OUT = WHOLE.replace(b"false", b"null")
OVERLOADED = b'{"score":0.5,"errors":{"pose_estimator":{"code":"overloaded","message":"-"}}}'


@pytest.mark.parametrize(
    ("status", "announced", "body", "refused"),
    [
        (200, False, WHOLE, None),
        (200, False, LEFT_OUT, "in part"),
        (200, False, OVERLOADED, "in part"),
        (429, True, b"{}", 429),
        (503, True, b"{}", 503),
    ],
)
async def test_a_right_answer_and_an_announced_refusal_are_not_wrong(
    monkeypatch: pytest.MonkeyPatch, status: int, announced: bool, body: bytes, refused: int | str | None
) -> None:
    found = await judged(monkeypatch, status, announced, body)
    assert found.wrong == []
    assert found.refused == ({} if refused is None else {refused: 1})


@pytest.mark.parametrize(
    ("status", "announced", "body"),
    [
        (200, False, WHOLE.replace(b"0.5", b"0.7")),
        (200, False, WHOLE.replace(b"false", b"true")),
        (200, False, b""),
        (429, False, b"{}"),
        (503, False, b"{}"),
        (500, True, b"{}"),
        (504, False, b"{}"),
        (422, False, b"{}"),
    ],
)
async def test_any_other_answer_is_wrong(
    monkeypatch: pytest.MonkeyPatch, status: int, announced: bool, body: bytes
) -> None:
    found = await judged(monkeypatch, status, announced, body)
    assert len(found.wrong) == 1
    assert found.refused == {}


async def judged(monkeypatch: pytest.MonkeyPatch, status: int, announced: bool, body: bytes) -> Outcome:
    """What a soak whose reference is WHOLE makes of an answer."""
    call = Call("/person-reid/compare", b"{}", "application/json")

    async def answered(*_: object, **__: object) -> tuple[int, bool, bytes]:
        return status, announced, body

    async with aiohttp.ClientSession() as session:
        load = Load(session, seed=0)
        monkeypatch.setattr(load, "_ask", answered)
        monkeypatch.setattr(load, "_references", {call: WHOLE})
        await load._fault(call)
    return load.outcome


@pytest.mark.slow
@pytest.mark.serve
def test_a_short_soak_finds_nothing_wrong_but_is_no_proof(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.endurance", "--requests", "300", "--service", FAKE],
        cwd=ROOT,
        env=os.environ | {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "| wrong; lost; refused | 0; 0; {} |" in done.stdout
    assert "| calls | 300 in " in done.stdout
    assert "samples in the last half" in done.stdout.splitlines()[-1]
