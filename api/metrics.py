"""The seed's four Prometheus metrics; they come out of BentoML's own /metrics, all processes merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from models.catalogue import CATALOGUE

# `endpoint` is the route and `status` the HTTP status, as in BentoML's own metrics.
REQUESTS: Final = Counter(
    "enrichment_light_inference_requests_total", "Inference requests by route and HTTP status", ["endpoint", "status"]
)
LATENCY: Final = Histogram(
    "enrichment_light_inference_latency_seconds",
    "From the decoded image to the result, queueing included",
    ["endpoint"],
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
# Only the API process sets the gauges, from the runners' heartbeat: set by each process, a killed runner's last value
# would stay beside its successor's.
GPU_MEMORY: Final = Gauge(
    "enrichment_light_gpu_memory_used_gb",
    "Device memory of the runner processes, CUDA context included",
    multiprocess_mode="livemostrecent",
)
MODEL_LOADED: Final = Gauge(
    "enrichment_light_model_loaded",
    "1 where the model is ready to answer",
    ["model"],
    multiprocess_mode="livemostrecent",
)


def set_gauges(gpu_memory_used_gb: float, loaded: Mapping[str, bool]) -> None:
    """Publish what the heartbeat found; a model it knows nothing of counts as not loaded."""
    GPU_MEMORY.set(gpu_memory_used_gb)
    for name in CATALOGUE:
        MODEL_LOADED.labels(model=name).set(1 if loaded.get(name) else 0)
