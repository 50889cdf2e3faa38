"""A budget that fits three of five models, over fake engines that take real memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.agreement import Disagreement
from benchmarks.budget import Outcome, answers, load, mix
from models.catalogue import CATALOGUE
from tests.serving import fake
from tests.serving.pictures import ask, check_error, encoded, marked, plain, ramp
from tests.serving.server import Server, configuration, serving

pytestmark = pytest.mark.serve

NAMES = tuple(CATALOGUE)
SIZE_MB = 120
BUDGET_MB = 500  # three models, and what the process takes beside them
STAY_S = 0.25
REQUESTS = 120
PICTURES = [
    *(encoded(plain((20 * i, 90, 255 - 20 * i))) for i in range(8)),
    encoded(marked((10, 20, 40, 60), (160, 90))),
    encoded(ramp((90, 160))),
]


def same(_: str, expected: dict[str, Any], body: dict[str, Any]) -> None:
    may_differ = {"inference_time_ms": 0}
    if expected | may_differ != body | may_differ:
        raise Disagreement(str(body)[:200])


def environment_of(folder: Path, changes: dict[str, Any]) -> dict[str, str]:
    sizes = folder / fake.MEMORY
    sizes.mkdir()
    for name in NAMES:
        (sizes / name).write_text(str(SIZE_MB))
    return {fake.MEMORY: str(sizes), "BENTOML_CONFIG": str(configuration(folder, changes))}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("small")
    changes = {
        "preload": [],
        "residency.budget_mb": BUDGET_MB,
        "residency.min_residency_s": STAY_S,
        "limits.request_timeout_s": 100,  # on a busy machine the queue is not what refuses
    }
    with serving(folder, environment_of(folder, changes)) as running:
        yield running


@pytest.fixture(scope="module")
def outcome(server: Server, small: Server) -> Outcome:
    expected = asyncio.run(answers(server.url, PICTURES))
    return asyncio.run(load(small.url, PICTURES, mix(REQUESTS, len(PICTURES)), expected, same, concurrency=16))


def test_all_requests_get_their_answers(outcome: Outcome) -> None:
    assert outcome.wrong == []
    assert outcome.unannounced == 0
    assert outcome.statuses == {"200": REQUESTS}


def test_the_memory_stays_within_the_budget_and_one_model(outcome: Outcome) -> None:
    assert all(SIZE_MB * 0.9 < size < SIZE_MB * 1.6 for size in outcome.sizes_mb.values())
    assert len(outcome.memory_mb) > 50
    assert max(outcome.memory_mb) <= BUDGET_MB + SIZE_MB
    assert max(outcome.memory_mb) > BUDGET_MB - SIZE_MB  # and three models were in it


def test_reloads_are_bounded(outcome: Outcome) -> None:
    # Three places, in each of which a model stays its time; each model's first load may pass the budget beside them.
    assert 5 < sum(outcome.loads.values()) <= 3 * outcome.took_s / STAY_S + 5


def test_memory_is_back_after_an_unload(small: Server, outcome: Outcome) -> None:
    left = [line for line in small.log.splitlines() if " evicted to make room for " in line]
    assert len(left) > 2
    for line in left:
        before, after = (float(part.split()[0]) for part in line.rsplit(": ", 1)[1].split(", "))
        assert before - after > SIZE_MB * 0.9, line


@pytest.mark.slow
def test_a_model_that_can_never_fit_is_refused_with_the_figures(tmp_path: Path) -> None:
    changes = {"preload": ["pose_estimator", "threat_detector"], "residency.budget_mb": SIZE_MB * 3}
    with serving(tmp_path, environment_of(tmp_path, changes)) as server, httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            response = ask(client, "/person-reid", PICTURES[0])
            check_error(response, 503, "model_unavailable")
            message = response.json()["error"]["message"]
            assert "person_reid does not fit: it takes 1" in message
            assert "the budget is 360 MB; preloaded and staying: pose_estimator (1" in message
            assert int(response.headers["retry-after"]) > 0
        server.wait(lambda: server.model("person_reid")["state"] == "failed", "failed", 5)
        detail = server.model("person_reid")["detail"]
        assert detail.startswith("person_reid does not fit: it takes 1")
        assert "; the next try is in " in detail
        assert server.health().json()["status"] == "degraded"
        assert server.is_ready()
        assert ask(client, "/pose-analyze", PICTURES[0]).status_code == 200
        assert server.health().json()["runners"][0]["memory"]["budget_mb"] == 360
