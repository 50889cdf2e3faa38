"""What Prometheus sees before the first request, and after a heartbeat."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY

from api import metrics
from models.catalogue import CATALOGUE
from models.state import State

ROUTE = "/test-of-metrics"


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def health(state: State, memory: dict[str, Any] | None) -> dict[str, Any]:
    model = {"state": state, "loads": 2, "engine_build_failed": True}
    return {
        "gpu_memory_used_gb": 0.5,
        "models_loaded": dict.fromkeys(CATALOGUE, state is State.READY),
        "models": dict.fromkeys(CATALOGUE, model),
        "runners": [{"name": "test-runner", "restarts": 3, "memory": memory}],
    }


def test_a_counter_is_there_before_its_first_count() -> None:
    metrics.begin([ROUTE])
    for status in ("200", "429", "503"):
        assert value("enrichment_light_inference_requests_total", endpoint=ROUTE, status=status) == 0
    assert value("enrichment_light_inference_requests_total", endpoint=ROUTE, status="404") is None  # not of inference
    assert value("enrichment_light_inference_latency_seconds_count", endpoint=ROUTE) == 0


def test_the_gauges_say_what_health_says() -> None:
    metrics.set_gauges(health(State.READY, {"used_mb": 700, "budget_mb": 1200}))
    assert value("enrichment_light_model_loaded", model="person_reid") == 1
    states = {state: value("enrichment_light_model_state", model="person_reid", state=state.value) for state in State}
    assert states == {state: float(state is State.READY) for state in State}
    assert value("enrichment_light_model_loads", model="person_reid") == 2
    assert value("enrichment_light_engine_build_failed", model="person_reid") == 1
    assert value("enrichment_light_gpu_memory_used_gb") == 0.5
    assert value("enrichment_light_runner_restarts", runner="test-runner") == 3
    assert value("enrichment_light_runner_memory_used_gb", runner="test-runner") == 0.7
    assert value("enrichment_light_runner_memory_budget_gb", runner="test-runner") == 1.2


def test_of_a_runner_that_is_gone_no_memory_is_used_and_the_budget_stays() -> None:
    metrics.set_gauges(health(State.READY, {"used_mb": 700, "budget_mb": 1200}))
    metrics.set_gauges(health(State.FAILED, None))
    assert value("enrichment_light_runner_memory_used_gb", runner="test-runner") == 0
    assert value("enrichment_light_runner_memory_budget_gb", runner="test-runner") == 1.2
    assert value("enrichment_light_model_loaded", model="person_reid") == 0
