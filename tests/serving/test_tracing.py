"""One trace per request, sent to a collector of this test's own: it receives what any OTLP collector would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.collector import Collector, collecting
from engines.cores import side_by_side
from models.catalogue import CATALOGUE, ModelName
from tests.serving import fake
from tests.serving.pictures import ask, base64_of, plain
from tests.serving.server import Server, serving

pytestmark = pytest.mark.serve

STEPS: Final = ["wait", "read", "decode", "prepare", "queue", "load", "forward", "interpret", "post", "encode"]
SLOW_S: Final = 0.5
_CALLERS_MOST: Final = 1_000_000  # trace ids of these tests' callers are smaller; random ones are not


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with serving(tmp_path_factory.mktemp("traced"), environment) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in span.attributes}


def traced(client: httpx.Client, server: Server, collector: Collector, number: int, **request: Any) -> list[Span]:
    """Ask with a trace id of the caller's; the spans of that trace, when the request's own has arrived."""
    trace, parent = f"{number:032x}", f"{number:016x}"
    response = client.post(headers={"traceparent": f"00-{trace}-{parent}-01"}, **request)
    assert response.status_code < 500
    server.wait(lambda: any(span.parent_span_id.hex() == parent for span in collector.traces[trace]), "traced", 30)
    return sorted(collector.traces[trace], key=lambda span: span.start_time_unix_nano)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_request_is_one_trace_with_its_steps_one_after_the_other(
    client: httpx.Client, server: Server, collector: Collector, name: ModelName
) -> None:
    number = 1000 + list(CATALOGUE).index(name)
    body = {"image_base64": base64_of(plain((1, 2, 3)))}
    spans = traced(client, server, collector, number, url=CATALOGUE[name].route, json=body)
    (request,) = (span for span in spans if span.kind == Span.SPAN_KIND_SERVER)
    assert request.name == f"POST {CATALOGUE[name].route}"
    assert attributes(request)["enrichment.model"] == name
    assert attributes(request)["enrichment.request_id"]
    steps = [span for span in spans if span.parent_span_id == request.span_id and "http" not in span.name]
    assert [span.name for span in steps] == STEPS
    reached = request.start_time_unix_nano
    for span in steps:
        assert reached <= span.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano
        reached = span.end_time_unix_nano
    (forward,) = (span for span in steps if span.name == "forward")
    assert attributes(forward) == {"enrichment.batch": 1, "enrichment.engine": "openvino"}


def test_requests_over_one_connection_are_traces_of_their_own(
    client: httpx.Client, server: Server, collector: Collector
) -> None:
    body = {"image_base64": base64_of(plain((1, 2, 3)))}
    earlier = set(collector.traces)
    for _ in range(3):  # with no trace of the caller's, over httpx's kept connection
        assert client.post("/person-reid", json=body).status_code == 200

    def own() -> list[list[Span]]:
        """The traces which no caller began. Spans of the other tests' requests may still arrive."""
        traces = {trace: spans for trace, spans in list(collector.traces.items()) if trace not in earlier}
        return [spans for trace, spans in traces.items() if int(trace, 16) > _CALLERS_MOST]

    def is_whole(spans: list[Span]) -> bool:
        return {*STEPS} <= {span.name for span in spans} and any(span.kind == Span.SPAN_KIND_SERVER for span in spans)

    server.wait(lambda: len(own()) == 3 and all(map(is_whole, own())), "traced", 30)
    time.sleep(0.5)
    assert len(own()) == 3
    for spans in own():
        assert [span.name for span in spans if span.kind == Span.SPAN_KIND_SERVER] == ["POST /person-reid"]
        assert sorted(span.name for span in spans if span.name in STEPS) == sorted(STEPS)


def test_queueing_shows_as_queueing(client: httpx.Client, server: Server, collector: Collector) -> None:
    places = side_by_side(0) + 1
    with ThreadPoolExecutor(places) as pool, ThreadPoolExecutor(2) as others:
        first = []
        for _ in range(places):  # one after the other, or they were one batch
            first.append(pool.submit(ask, client, "/person-reid", plain(fake.sleeper(6 * SLOW_S))))
            time.sleep(SLOW_S / 2 / places)
        body = {"image_base64": base64_of(plain((1, 2, 3)))}
        last = others.submit(client.post, "/person-reid", json=body)
        batched = others.submit(traced, client, server, collector, 2001, url="/person-reid", json=body)
        spans = traced(client, server, collector, 2000, url="/person-reid", json=body)
        # Those who wait are one batch, and each trace has its steps.
        assert {"wait", "forward", "post"} <= {span.name for span in batched.result()}
        assert last.result().json()["inference_time_ms"] > SLOW_S / 2 * 1000  # queueing is included
        assert [slow.result().status_code for slow in first] == [200] * places
    seconds = {span.name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for span in spans}
    assert seconds["wait"] > SLOW_S / 2
    assert seconds["forward"] < seconds["wait"]


def test_a_request_that_was_not_answered_shows_how_long_it_waited(
    client: httpx.Client, server: Server, collector: Collector
) -> None:
    body = {"image_base64": base64_of(plain(fake.RAISES))}
    trace, parent = f"{2500:032x}", f"{2500:016x}"
    assert client.post("/person-reid", headers={"traceparent": f"00-{trace}-{parent}-01"}, json=body).status_code == 500
    server.wait(lambda: any(span.parent_span_id.hex() == parent for span in collector.traces[trace]), "traced", 30)
    names = {span.name for span in collector.traces[trace]}
    assert {"read", "decode", "prepare", "unanswered"} <= names
    assert not names & {"queue", "forward", "post"}


def test_what_machines_ask_all_the_time_is_not_traced(
    client: httpx.Client, server: Server, collector: Collector
) -> None:
    for path in ("/health", "/readyz", "/livez", "/metrics"):
        assert client.get(path).status_code == 200
    traced(client, server, collector, 3000, url="/person-reid", json={"image_base64": "x"})  # a 4xx is traced, too
    time.sleep(2.5)  # two heartbeats of the runner, and the exporter's delay
    names = {span.name for spans in list(collector.traces.values()) for span in list(spans)}
    assert "POST /person-reid" in names
    assert not [name for name in names if any(path in name for path in ("health", "readyz", "livez", "metrics"))]
    assert not [name for name in names if "state" in name]


@pytest.mark.slow
def test_a_collector_that_is_not_there_changes_no_answer(tmp_path: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}
    with serving(tmp_path, environment) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        assert ask(client, "/person-reid", plain((1, 2, 3))).status_code == 200
