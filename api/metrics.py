"""The Prometheus metrics of the service, published in BentoML's own /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from api.errors import STATUS
from models.catalogue import CATALOGUE
from models.state import State
from runners.metric_files import keep_files

keep_files()

# `endpoint` is the route and `status` the HTTP status, as in BentoML's own metrics.
REQUESTS: Final = Counter(
    "enrichment_light_inference_requests_total", "Inference requests by route and HTTP status", ["endpoint", "status"]
)
LATENCY: Final = Histogram(
    "enrichment_light_inference_latency_seconds",
    "From the decoded image to the result, queueing included",
    ["endpoint"],
    # 2 and 10 are the alert's limits: between two bounds a quantile is a guess.
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 10, 30),
)
DURATION: Final = Histogram(
    "enrichment_light_request_duration_seconds",
    "The whole request, from its head to the end of its answer",
    ["endpoint", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_NOT_OF_INFERENCE: Final = {403, 404, 405}  # a POST to an inference route never gets these


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    """Make a gauge that the API process alone sets, from the runners' heartbeat.

    If the runners set it, a killed runner's last value would stay beside its successor's.
    """
    return Gauge(name, text, labels, multiprocess_mode="livemostrecent")


START_TIME: Final = _gauge("enrichment_light_start_time_seconds", "When the API process started, in Unix time")
GPU_MEMORY: Final = _gauge(
    "enrichment_light_gpu_memory_used_gb", "Device memory of the runner processes, CUDA context included"
)
MODEL_LOADED: Final = _gauge("enrichment_light_model_loaded", "1 if the model is ready to answer", "model")
MODEL_STATE: Final = _gauge(
    "enrichment_light_model_state", "1 for the state that the model is in, 0 for the others", "model", "state"
)
MODEL_LOADS: Final = _gauge("enrichment_light_model_loads", "Loads of the model since its runner's start", "model")
ENGINE_BUILD_FAILED: Final = _gauge(
    "enrichment_light_engine_build_failed", "1 if the TensorRT engine's build failed, so that torch serves", "model"
)
RUNNER_MEMORY: Final = _gauge(
    "enrichment_light_runner_memory_used_gb",
    "Memory that counts against the budget: device memory on a GPU, growth of resident memory on a CPU",
    "runner",
)
RUNNER_BUDGET: Final = _gauge(
    "enrichment_light_runner_memory_budget_gb", "Budget of a runner process; 0 = no limit", "runner"
)
RUNNER_RESTARTS: Final = _gauge(
    "enrichment_light_runner_restarts", "Restarts of the runner process since the API's start", "runner"
)
OUT_OF_MEMORY: Final = Counter(
    "enrichment_light_out_of_memory_total", "Batches for which the device had too little memory", ["runner"]
)


def begin(routes: Iterable[str]) -> None:
    """Publish every inference metric as 0 before the first request and the first heartbeat.

    Prometheus' rate() would miss the first count of a counter that appears with it. routes: the inference routes.
    """
    START_TIME.set_to_current_time()
    GPU_MEMORY.set(0)
    for name in CATALOGUE:
        MODEL_LOADED.labels(model=name).set(0)
    for route in sorted(routes):
        LATENCY.labels(endpoint=route)
        for status in sorted({200, *STATUS.values()} - _NOT_OF_INFERENCE):
            REQUESTS.labels(endpoint=route, status=str(status))


def count(route: str, status: int, seconds: float) -> None:
    """Count an answered request to an inference route. status: HTTP status."""
    REQUESTS.labels(endpoint=route, status=str(status)).inc()
    DURATION.labels(endpoint=route, status=str(status)).observe(seconds)


def set_gauges(health: Mapping[str, Any]) -> None:
    """Publish a heartbeat's state. health: the body of /health."""
    GPU_MEMORY.set(health["gpu_memory_used_gb"])
    for name in CATALOGUE:
        model = health["models"][name]
        MODEL_LOADED.labels(model=name).set(1 if health["models_loaded"][name] else 0)
        MODEL_LOADS.labels(model=name).set(model["loads"])
        ENGINE_BUILD_FAILED.labels(model=name).set(1 if model["engine_build_failed"] else 0)
        for state in State:
            MODEL_STATE.labels(model=name, state=state.value).set(1 if model["state"] == state else 0)
    for runner in health["runners"]:
        RUNNER_RESTARTS.labels(runner=runner["name"]).set(runner["restarts"])
        memory = runner["memory"]
        RUNNER_MEMORY.labels(runner=runner["name"]).set(memory["used_mb"] / 1000 if memory else 0)
        if memory is not None:  # a runner that is down keeps its last known budget
            RUNNER_BUDGET.labels(runner=runner["name"]).set((memory["budget_mb"] or 0) / 1000)
