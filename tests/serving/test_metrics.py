from __future__ import annotations

import time
from collections.abc import Mapping

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.catalogue import CATALOGUE
from models.state import State
from tests.serving.fake import RAISES
from tests.serving.pictures import ROUTES, ask, plain

pytestmark = pytest.mark.serve

Labels = frozenset[tuple[str, str]]
IMAGE = plain((1, 2, 3))


def samples(client: httpx.Client, prefix: str = "enrichment_light_") -> dict[str, dict[Labels, float]]:
    """Sample name → labels → value, of the metrics whose names begin so."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name.startswith(prefix):
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def value(found: Mapping[str, Mapping[Labels, float]], name: str, **labels: str) -> float:
    return found.get(name, {}).get(frozenset(labels.items()), 0.0)


def test_there_are_the_documented_metrics_and_no_others(client: httpx.Client) -> None:
    ask(client, "/person-reid", IMAGE)
    families = {
        family.name: family.type
        for family in text_string_to_metric_families(client.get("/metrics").text)
        if family.name.startswith("enrichment_light_")
    }
    assert families == {
        "enrichment_light_inference_requests": "counter",  # the parser takes `_total` off
        "enrichment_light_inference_latency_seconds": "histogram",
        "enrichment_light_gpu_memory_used_gb": "gauge",
        "enrichment_light_model_loaded": "gauge",
        # and beside the seed's four:
        "enrichment_light_request_duration_seconds": "histogram",
        "enrichment_light_start_time_seconds": "gauge",
        "enrichment_light_model_state": "gauge",
        "enrichment_light_model_loads": "gauge",
        "enrichment_light_runner_memory_used_gb": "gauge",
        "enrichment_light_runner_memory_budget_gb": "gauge",
        "enrichment_light_runner_restarts": "gauge",
        "enrichment_light_out_of_memory": "counter",
        "enrichment_light_engine_build_failed": "gauge",
    }
    assert "\nenrichment_light_inference_requests_total{" in client.get("/metrics").text


@pytest.mark.parametrize("route", ROUTES)
def test_requests_are_counted_by_route_and_status(client: httpx.Client, route: str) -> None:
    name = "enrichment_light_inference_requests_total"
    before = samples(client)
    for _ in range(3):
        assert ask(client, route, IMAGE).status_code == 200
    for _ in range(2):
        assert client.post(route, json={}).status_code == 422
    assert client.post(route, content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert ask(client, route, plain(RAISES)).status_code == 500
    assert client.get(route).status_code == 405
    after = samples(client)
    counted = {
        status: value(after, name, endpoint=route, status=status) - value(before, name, endpoint=route, status=status)
        for status in ("200", "422", "415", "500", "405")
    }
    assert counted == {"200": 3, "422": 2, "415": 1, "500": 1, "405": 0}  # a GET is no inference request
    assert {key for labels in after[name] for key, _ in labels} == {"endpoint", "status"}


@pytest.mark.parametrize("route", [*ROUTES, "/enrich"])
def test_the_latency_of_answers_is_observed_by_route(client: httpx.Client, route: str) -> None:
    name = "enrichment_light_inference_latency_seconds"
    before = samples(client)
    reported = sum(ask(client, route, IMAGE).json()["inference_time_ms"] for _ in range(3)) / 1000
    client.post(route, json={})
    after = samples(client)
    counted = value(after, f"{name}_count", endpoint=route) - value(before, f"{name}_count", endpoint=route)
    total = value(after, f"{name}_sum", endpoint=route) - value(before, f"{name}_sum", endpoint=route)
    assert counted == 3
    assert total == pytest.approx(reported, abs=1e-3)
    known = [*ROUTES, "/object-distance", "/enrich", "/person-reid/compare", "/person-reid/match"]
    assert set(after[f"{name}_count"]) <= {frozenset({("endpoint", each)}) for each in known}


def test_the_gauges_say_what_health_says(client: httpx.Client) -> None:
    found = samples(client)
    assert 0 < time.time() - value(found, "enrichment_light_start_time_seconds") < 86_400
    assert found["enrichment_light_gpu_memory_used_gb"] == {frozenset(): 0.0}
    assert found["enrichment_light_model_loaded"] == {frozenset({("model", name)}): 1.0 for name in CATALOGUE}


def test_the_other_gauges_say_what_health_says(client: httpx.Client) -> None:
    health = client.get("/health").json()
    (runner,) = health["runners"]
    found = samples(client)
    for name in CATALOGUE:
        model = health["models"][name]
        assert value(found, "enrichment_light_model_loads", model=name) == model["loads"] > 0
        assert value(found, "enrichment_light_engine_build_failed", model=name) == 0
        states = {
            dict(labels)["state"]: value
            for labels, value in found["enrichment_light_model_state"].items()
            if ("model", name) in labels
        }
        assert states == {state.value: float(state.value == "ready") for state in State}
    labels = {"runner": runner["name"]}
    assert value(found, "enrichment_light_runner_restarts", **labels) == runner["restarts"]
    assert value(found, "enrichment_light_runner_memory_used_gb", **labels) == pytest.approx(
        runner["memory"]["used_mb"] / 1000, abs=0.1
    )
    assert value(found, "enrichment_light_runner_memory_budget_gb", **labels) == 0
    assert found["enrichment_light_out_of_memory_total"][frozenset(labels.items())] == 0


def test_a_model_that_cannot_answer_is_not_loaded(limited_client: httpx.Client) -> None:
    found = samples(limited_client)["enrichment_light_model_loaded"]
    loaded = {name: found[frozenset({("model", name)})] for name in CATALOGUE}
    assert loaded["pose_estimator"] == 1
    assert loaded["pet_classifier"] == loaded["depth_estimator"] == 0


def test_what_nobody_has_written_makes_no_series(client: httpx.Client) -> None:
    def series() -> set[tuple[str, Labels]]:
        return {(name, labels) for name, values in samples(client, "").items() for labels in values}

    def ask_for_what_is_not_there(number: int) -> None:
        for path in (
            f"/nope-{number}",
            f"/person-reid/{number}",
            f"/PERSON-reid{number}",
            f"/%6eope%20{number}/",
            f"//health{number}",
            f"/static_content/{number}",
            f"/assets/{number}.js",
            f"/nope?{number}",
            f"/{'x' * number}",
        ):
            assert client.get(f"{client.base_url}{path}").status_code == 404  # httpx makes a host of `//`
        for method in ("BREW", f"M{number}", "TRACE"):
            assert client.request(method, f"/nope-{number}").status_code == 404
            assert client.request(method, "/person-reid").status_code == 405

    def ask_by_another_spelling() -> None:
        for path in ("//health", "/health/", "/he%61lth", "/health//?a=b"):
            assert client.get(f"{client.base_url}{path}").status_code == 200

    client.get("/health")
    ask_for_what_is_not_there(1000)
    before = series()
    for number in range(25):
        ask_for_what_is_not_there(1001 + number)
    ask_by_another_spelling()
    assert series() == before
    assert ("endpoint", "unmatched") in {pair for _, labels in before for pair in labels}
