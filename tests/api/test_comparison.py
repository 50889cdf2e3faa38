"""Comparing people, with a fake in place of the models that see the images."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Sequence
from typing import Any, cast

import numpy as np
import pytest

from api.comparison import Comparison, EmbeddedSubject, Embedder
from api.errors import ApiError, invalid_field, not_assigned
from api.request import Received
from api.survey import Asked, Survey
from api.work import Finding
from engines.deadline import Deadline
from tasks.person_reid import ReidResponse
from tasks.pose_estimator import PoseResponse
from tasks.similarity import BORROWED, DIMENSION, Embedding, unit
from tests.api.bodies import as_form, as_json
from vision.arrays import Box

MEASURED, OTHER = "osnet-x0-25@osnet_x0_25@6f57607fed9f", "osnet-x0-25@osnet_x0_25@cf55163d78fc"
MAX = 2**20
DEADLINE = Deadline.after(30)


def vector(first: float, second: float) -> list[float]:
    return [first, second, *[0.0] * (DIMENSION - 2)]


class Eyes:
    """Sees an image of two bytes as the vector of their values. A person is in it if the first is not zero."""

    def __init__(self, model_id: str = MEASURED) -> None:
        self.model_id = model_id
        self.asked: list[tuple[bytes, Box | None]] = []
        self.looks = True
        self.untrained = False

    async def embed(self, image: bytes, box: Box | None, deadline: Deadline) -> EmbeddedSubject:
        assert deadline is DEADLINE
        self.asked.append((image, box))
        await asyncio.sleep(0)
        if image == b"damaged":
            raise ApiError("invalid_image", "the bytes are not an image")
        if box is not None and box[0] > 100:
            raise invalid_field("bbox", "lies outside")
        found = Embedding(unit(vector(image[0], image[1])), self.model_id)
        return EmbeddedSubject(found, image[0] > 0 if self.looks else None, self.untrained)


@pytest.fixture
def eyes() -> Eyes:
    return Eyes()


def picture(*values: int) -> dict[str, Any]:
    return {"image": base64.b64encode(bytes(values)).decode()}


def person(first: float, second: float, model_id: str = MEASURED) -> dict[str, Any]:
    return {"embedding": vector(first, second), "model_id": model_id}


def comparison(eyes: Eyes, threshold: float | None = None) -> Comparison:
    return Comparison(threshold, MAX, eyes.embed)


async def compared(eyes: Eyes, first: Any, second: Any, setting: float | None = None, **options: Any) -> dict[str, Any]:
    received = as_json({"first": first, "second": second} | options)
    return (await comparison(eyes, setting).compare(received, DEADLINE)).model_dump(exclude_unset=True)


async def refused(eyes: Eyes, received: Received, route: str = "compare") -> ApiError:
    with pytest.raises(ApiError) as caught:
        await getattr(comparison(eyes), route)(received, DEADLINE)
    return caught.value


async def test_two_images_are_compared(eyes: Eyes) -> None:
    answer = await compared(eyes, picture(3, 4), picture(4, 3) | {"bbox": [1, 2, 3, 4]})
    assert answer.pop("inference_time_ms") > 0
    assert answer == {
        "cosine": 0.96,
        "same_person": True,
        "threshold": 0.78,
        "threshold_source": "measured",
        "model_id": MEASURED,
        "first": {"person_in_view": True},
        "second": {"person_in_view": True},
    }
    assert sorted(eyes.asked) == [(b"\3\4", None), (b"\4\3", (1, 2, 3, 4))]


async def test_an_image_without_a_person_says_so(eyes: Eyes) -> None:
    answer = await compared(eyes, picture(0, 1), picture(1, 0))
    assert [answer[side]["person_in_view"] for side in ("first", "second")] == [False, True]
    eyes.looks = False
    assert (await compared(eyes, picture(0, 1), picture(1, 0)))["first"] == {"person_in_view": None}


async def test_embeddings_are_compared_without_any_model(eyes: Eyes) -> None:
    answer = await compared(eyes, person(3, 4), person(30, -40))
    assert (answer["cosine"], answer["same_person"]) == (-0.28, False)
    assert (answer["first"], answer["second"]) == ({"person_in_view": None}, {"person_in_view": None})
    assert eyes.asked == []


@pytest.mark.parametrize(
    ("model_id", "setting", "options", "expected"),
    [
        (MEASURED, None, {}, (0.78, "measured")),
        (OTHER, None, {}, (BORROWED, "borrowed")),
        (OTHER, 0.6, {}, (0.6, "setting")),
        (MEASURED, 0.6, {}, (0.6, "setting")),
        (OTHER, 0.6, {"threshold": 0.0}, (0.0, "request")),
    ],
)
async def test_the_answer_says_where_the_threshold_comes_from(
    model_id: str, setting: float | None, options: dict[str, float], expected: tuple[float, str]
) -> None:
    eyes = Eyes(model_id)
    answer = await compared(eyes, picture(1, 1), picture(1, 1), setting, **options)
    assert (answer["threshold"], answer["threshold_source"]) == expected


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (picture(1, 1), person(1, 1, OTHER), "second.model_id"),
        (person(1, 1, OTHER), picture(1, 1), "first.model_id"),
        (person(1, 1, OTHER), person(1, 1), "second.model_id"),
    ],
)
async def test_two_models_are_refused_with_both_ids(eyes: Eyes, first: Any, second: Any, field: str) -> None:
    error = await refused(eyes, as_json({"first": first, "second": second}))
    assert (error.status, error.details[0]["field"]) == (422, field)
    assert MEASURED in error.message
    assert OTHER in error.message


async def test_a_candidate_of_another_model_than_the_image_is_refused(eyes: Eyes) -> None:
    candidates = [{"id": "a"} | person(1, 1, OTHER)]
    error = await refused(eyes, as_json({"query": picture(1, 1), "candidates": candidates}), "match")
    assert (error.status, error.details[0]["field"]) == (422, "candidates[0].model_id")


async def test_an_image_that_can_not_be_used_is_named(eyes: Eyes) -> None:
    error = await refused(eyes, as_form(("first", bytes([1, 1])), ("second", b"damaged")))
    assert (error.code, error.message) == ("invalid_image", "second: the bytes are not an image")
    outside = picture(1, 1) | {"bbox": [200, 2, 300, 4]}
    error = await refused(eyes, as_json({"first": outside, "second": picture(1, 1)}))
    assert error.details == [{"field": "first.bbox", "message": "lies outside"}]
    some = {"query": outside, "candidates": [{"id": "a"} | person(1, 1)]}
    assert (await refused(eyes, as_json(some), "match")).details[0]["field"] == "query.bbox"


@pytest.mark.parametrize("query", [picture(1, 0), person(1, 0)])
async def test_candidates_are_ranked(eyes: Eyes, query: Any) -> None:
    candidates = [{"id": name} | person(*values) for name, values in {"a": (0, 1), "b": (4, 3), "c": (1, 0)}.items()]
    received = as_json({"query": query, "candidates": candidates, "threshold": 0.5})
    answer = (await comparison(eyes).match(received, DEADLINE)).model_dump(exclude_unset=True)
    assert answer.pop("inference_time_ms") > 0
    assert answer == {
        "matches": [{"id": "c", "cosine": 1.0}, {"id": "b", "cosine": 0.8}],
        "compared": 3,
        "best": {"id": "c", "cosine": 1.0},
        "threshold": 0.5,
        "threshold_source": "request",
        "model_id": MEASURED,
        "query": {"person_in_view": True if "image" in query else None},
    }


async def test_stand_in_weights_are_told(eyes: Eyes) -> None:
    eyes.untrained = True
    assert (await compared(eyes, picture(1, 1), person(1, 1)))["untrained"] is True
    assert "untrained" not in await compared(eyes, person(1, 1), person(1, 1))
    received = as_json({"query": picture(1, 1), "candidates": [{"id": "a"} | person(1, 1)]})
    assert (await comparison(eyes).match(received, DEADLINE)).untrained is True


class Surveyor:
    """In place of api.survey.Surveyor: has these findings, whatever is asked."""

    def __init__(self, *findings: Finding | ApiError) -> None:
        self.findings = findings
        self.asked: Sequence[Asked] = ()

    async def survey(self, image: bytes, asked: Sequence[Asked], deadline: Deadline) -> Survey:
        assert (image, deadline) == (b"image", DEADLINE)
        self.asked = asked
        return Survey((4, 3), self.findings, 0, 0, 0)


def embedded(surveyor: Surveyor) -> Awaitable[EmbeddedSubject]:
    return Embedder(cast(Any, surveyor))(b"image", (1, 2, 3, 4), DEADLINE)


REID = ReidResponse(embedding=vector(3, 4), embedding_dim=512, embedding_dimension=512, model_id=MEASURED)


@pytest.mark.parametrize("people", [0, 2])
async def test_an_image_is_embedded_and_looked_at_for_a_person(people: int) -> None:
    pose = PoseResponse(keypoints=[], posture="unknown", alerts=[], num_people=people, persons=[])
    surveyor = Surveyor(Finding(REID, None, 0), Finding(pose, None, 0))
    seen = await embedded(surveyor)
    assert (seen.embedding.model_id, seen.person_in_view, seen.untrained) == (MEASURED, people > 0, False)
    np.testing.assert_allclose(seen.embedding.vector, unit(vector(3, 4)))
    assert [(asked.name, asked.box) for asked in surveyor.asked] == [
        ("person_reid", (1, 2, 3, 4)),
        ("pose_estimator", (1, 2, 3, 4)),
    ]


async def test_nobody_looks_if_the_pose_model_can_not_serve() -> None:
    seen = await embedded(Surveyor(Finding(REID, None, 0), not_assigned("pose_estimator")))
    assert seen.person_in_view is None


async def test_no_embedding_is_an_error() -> None:
    with pytest.raises(ApiError, match="heavy service"):
        await embedded(Surveyor(not_assigned("person_reid"), not_assigned("pose_estimator")))


async def test_the_same_request_has_the_same_answer(eyes: Eyes) -> None:
    rows = np.random.default_rng(3).normal(size=(50, DIMENSION)).tolist()
    candidates = [{"id": str(at), "embedding": row, "model_id": MEASURED} for at, row in enumerate(rows)]
    received = as_json({"query": candidates[7], "candidates": candidates, "threshold": 0})
    answers = [(await comparison(eyes).match(received, DEADLINE)).matches for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0].id == "7"
