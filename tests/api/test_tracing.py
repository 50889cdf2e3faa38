"""The spans of one process, as an exporter receives them; over real servers: tests/serving/test_tracing.py."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer, get_current_span

from api.answering import Answering
from api.embedded import EmbeddedLink
from api.request import Received
from api.tracing import UNTRACED, Spans, bentoml_settings
from engines.deadline import Deadline
from models.catalogue import CATALOGUE
from settings import Tracing
from tasks.task import Timing
from tests.api.answered import SETTINGS, Runner
from tests.serving.pictures import encoded, plain

OFF = Tracing(endpoint=None, sample_rate=1)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def test_a_runner_s_times_become_spans_without_gaps_below_the_request_s(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    timing = Timing(taken=200, loaded=300, forwarded=700, interpreted=900, batch=4, engine="openvino")
    with tracer.start_as_current_span("request"):
        Spans(tracer).of_runner(100, timing)
    *steps, request = exporter.get_finished_spans()
    assert [span.name for span in steps] == ["queue", "load", "forward", "interpret"]
    began = times(steps[0])[0]
    assert [(start - began, end - began) for start, end in map(times, steps)] == [
        (0, 100),
        (100, 200),
        (200, 600),
        (600, 800),
    ]
    assert abs(time.time_ns() - time.monotonic_ns() - (began - 100)) < 10**9  # by the machine's clock
    assert request.context is not None
    assert {span.parent.span_id for span in steps if span.parent is not None} == {request.context.span_id}
    assert [dict(span.attributes or {}) for span in steps] == [
        {},
        {},
        {"enrichment.batch": 4, "enrichment.engine": "openvino"},
        {},
    ]


def test_a_request_without_a_result_has_one_span_until_now(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    sent = time.monotonic_ns() - 10**9
    asked = time.time_ns()
    Spans(tracer).of_runner(sent, None)
    (span,) = exporter.get_finished_spans()
    assert span.name == "unanswered"
    began, ended = times(span)
    assert 10**9 <= ended - began < 2 * 10**9
    assert abs(ended - asked) < 10**9


def test_steps_nest_past_waits_begin_in_the_past_and_the_request_is_described(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    spans = Spans(tracer)
    arrived = time.monotonic_ns() - 10**6
    with tracer.start_as_current_span("request"):
        spans.describe(model="person_reid")
        spans.past("wait", arrived)
        with spans.step("decode"), spans.step("inner"):
            pass
    wait, inner, decode, request = exporter.get_finished_spans()
    assert [span.name for span in (wait, inner, decode)] == ["wait", "inner", "decode"]
    assert 10**6 <= times(wait)[1] - times(wait)[0] < 10**9
    assert decode.context is not None
    assert inner.parent is not None
    assert inner.parent.span_id == decode.context.span_id
    assert dict(request.attributes or {}) == {"enrichment.model": "person_reid"}


def test_without_an_endpoint_nothing_is_recorded_or_exported() -> None:
    assert bentoml_settings(OFF) == {}
    spans = Spans.of(OFF)
    with spans.step("decode"):
        assert not get_current_span().is_recording()
    spans.of_runner(1, None)


def test_with_an_endpoint_bentoml_exports_to_it_whatever_machines_do_not_poll() -> None:
    endpoint = "http://collector:4318/v1/traces"
    found = bentoml_settings(Tracing.model_validate({"endpoint": endpoint, "sample_rate": 0.25}))
    assert (found["exporter_type"], found["sample_rate"]) == ("otlp", 0.25)
    assert found["otlp"] == {"protocol": "http", "endpoint": endpoint}
    assert found["excluded_urls"] == list(UNTRACED)
    untraced = re.compile("|".join(UNTRACED))
    assert all(untraced.search(f"http://camera:8096/{path}") for path in ("health", "livez", "readyz", "metrics"))
    assert not any(untraced.search(f"http://camera:8096{spec.route}") for spec in CATALOGUE.values())


async def test_a_call_to_several_models_is_one_trace_with_one_decoding(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    link = EmbeddedLink("runners", list(CATALOGUE), cast(Any, Runner()), [])
    answering = Answering(SETTINGS, dict.fromkeys(link.models, link), Spans(tracer))
    boxes = "[[0, 0, 40, 30], [10, 10, 70, 50]]"
    received = Received("image/png", encoded(plain((9, 8, 7), (80, 60))), {"boxes": boxes, "models": "reid,depth"})
    with tracer.start_as_current_span("request") as request:
        await answering.answer("/enrich", received, Deadline.after(30))
    spans = exporter.get_finished_spans()
    counted = Counter(span.name for span in spans)
    assert (counted["read"], counted["decode"], counted["prepare"], counted["post"]) == (1, 1, 1, 3)
    assert {span.context.trace_id for span in spans if span.context} == {request.get_span_context().trace_id}
