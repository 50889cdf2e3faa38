"""The steps of a request one by one; how requests go through them together: tests/api/test_answering.py."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from api.errors import ApiError
from api.gate import Body
from api.request import Received
from api.steps import MODEL_OF, Steps
from api.tracing import Spans
from api.work import Question, Ready, Request
from engines.deadline import Abandoned, Deadline
from models.catalogue import CATALOGUE
from settings import DEFAULT_FILE, load
from tasks.task import Options
from tests.serving.fake import PET_INPUT
from tests.serving.pictures import encoded, plain

DELIVERED = load(DEFAULT_FILE, {})
SETTINGS = DELIVERED.model_copy(update={"limits": DELIVERED.limits.model_copy(update={"max_megapixels": 1})})
PNG = encoded(plain((9, 8, 7), (40, 60)))


class Link:
    """Says of each model what the test wrote down: its status, or the error that it can't serve."""

    def __init__(self, status: Mapping[str, Any] | ApiError) -> None:
        self.status = status

    def model(self, name: str) -> Mapping[str, Any]:
        if isinstance(self.status, ApiError):
            raise self.status
        return self.status


READY: Mapping[str, Any] = {"input": PET_INPUT, "untrained": False}
DOWN = ApiError("runner_unavailable", "the runner is being started anew")


def steps() -> Steps:
    return Steps(SETTINGS, Spans.of(SETTINGS.tracing))


def work(body: bytes = PNG, route: str = "/person-reid", link: Any = None, **query: str) -> Request:
    received = Received("image/png", body, query)
    return Request(
        route=route,
        name=MODEL_OF[route],
        link=cast(Any, link or Link(READY)),
        received=received,
        deadline=Deadline.after(30),
        context=copy_context(),
        queued=time.monotonic_ns(),
    )


def refusal(asked: Request) -> str:
    with pytest.raises(ApiError) as caught:
        steps().ready(asked)
    return caught.value.code


@pytest.mark.parametrize(
    ("body", "query", "code", "before_decoding"),
    [
        pytest.param(b"no picture at all", {}, "invalid_image", True, id="no picture"),
        pytest.param(PNG, {"bbox": "1,2"}, "invalid_request", True, id="half a box"),
        pytest.param(encoded(plain((0, 0, 0), (1200, 900))), {}, "image_too_large", True, id="large"),
        pytest.param(PNG[:50], {}, "invalid_image", False, id="cut off"),
        pytest.param(PNG, {"bbox": "100,100,200,200"}, "invalid_request", False, id="box outside"),
    ],
)
def test_a_client_s_mistake_is_told_before_the_model_s_state_where_decoding_is_not_needed_for_it(
    body: bytes, query: dict[str, str], code: str, before_decoding: bool
) -> None:
    assert refusal(work(body, **query)) == code
    assert refusal(work(body, link=Link(DOWN), **query)) == (code if before_decoding else DOWN.code)


def test_a_picture_is_not_decoded_for_a_model_that_can_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.steps.Picture", None)
    assert refusal(work(link=Link(DOWN))) == "runner_unavailable"


@pytest.mark.parametrize("route", MODEL_OF)
def test_each_route_s_items_are_prepared_under_ids_of_their_own(route: str) -> None:
    made = steps()
    ready = [made.ready(work(route=route, bbox="5,5,35,55")) for _ in range(3)]
    ids = [item["id"] for one in ready for item in one.prepared.items]
    assert len(set(ids)) == len(ids) >= 3
    assert all(item["image"].dtype == np.uint8 for one in ready for item in one.prepared.items)


def test_every_model_has_its_route_and_distance_is_depth_s() -> None:
    assert {spec.route: spec.name for spec in CATALOGUE.values()} | {"/object-distance": "depth_estimator"} == MODEL_OF


def encode(made: Steps, ready: Ready) -> dict[str, Any]:
    result = {"embedding": np.ones(512, np.float32), "model_id": "osnet"}
    finished = made.finish(ready, [result], made.answer(ready, [result]))
    assert isinstance(finished, Body)
    body: dict[str, Any] = json.loads(finished.data)
    return body


@pytest.mark.parametrize("untrained", [False, True])
def test_who_answered_untrained_is_said_as_it_was_when_the_request_was_read(untrained: bool) -> None:
    made, link = steps(), Link({**READY, "untrained": untrained})
    ready = made.ready(work(link=link))
    link.status = DOWN  # meanwhile
    assert encode(made, ready).get("untrained", False) is untrained


def test_the_time_that_is_said_begins_when_the_picture_is_decoded() -> None:
    made = steps()
    before = time.perf_counter()
    ready = made.ready(work())
    assert before < ready.decoded < time.perf_counter()
    time.sleep(0.05)
    waiting = replace(work(), queued=time.monotonic_ns() - 2_000_000_000)
    assert 2000 < encode(made, made.ready(waiting))["inference_time_ms"] < 3000  # queueing is included
    said = encode(made, ready)["inference_time_ms"]
    assert 50 <= said <= (time.perf_counter() - before) * 1000


def test_nothing_more_is_prepared_for_a_call_whose_time_is_over() -> None:
    deadline, prepared = Deadline.after(30), []

    class Third(Link):
        def model(self, name: str) -> Mapping[str, Any]:
            prepared.append(name)
            if len(prepared) == 3:
                deadline.abandon()
            return super().model(name)

    questions = [Question("person_reid", cast(Any, Third(READY)), (0, 0, 9, 9 + n), Options()) for n in range(64)]
    with pytest.raises(Abandoned):
        steps().opened(PNG, questions, deadline, lambda _: None)
    assert len(prepared) == 3
