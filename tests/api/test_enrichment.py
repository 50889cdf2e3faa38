from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api import enrichment
from api.answering import Answering
from api.enrich_schemas import BoxAnswer, EnrichResponse
from api.errors import ApiError
from api.queue import _Group
from api.request import Received
from api.survey import PreparedImages
from engines.deadline import Abandoned, Deadline
from models.catalogue import CATALOGUE
from settings import DEFAULT_FILE, load
from tests.api.answered import Runner, answering_of
from tests.serving.pictures import base64_of, encoded, plain

IMAGE = encoded(plain((9, 8, 7), (80, 60)))
BOXES = [[0, 0, 40, 30], [10, 10, 70, 50], [5, 5, 25, 45]]


async def enrich(answering: Answering, *, seconds: float = 30, **fields: Any) -> dict[str, Any]:
    body = json.dumps({"image": base64_of(IMAGE), **fields}).encode()
    answer = await answering.answer("/enrich", Received("application/json", body, {}), Deadline.after(seconds))
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def alone(answering: Answering, route: str, **fields: Any) -> dict[str, Any]:
    body = json.dumps({"image": base64_of(IMAGE), **fields}).encode()
    answer = await answering.answer(route, Received("application/json", body, {}), Deadline.after(30))
    found: dict[str, Any] = json.loads(answer.data)
    return found


def untimed(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "inference_time_ms"}


async def test_without_boxes_every_model_answers_on_the_whole_image_as_its_route_does() -> None:
    answering = answering_of(Runner(people=1))
    answer = await enrich(answering, options={"depth": {"map": True}})
    assert list(answer["results"]) == list(CATALOGUE)
    assert (answer["image"], answer["boxes"], answer["errors"]) == ({"width": 80, "height": 60}, [], {})
    for name, result in answer["results"].items():
        assert untimed(result) == untimed(await alone(answering, CATALOGUE[name].route)), name


async def test_with_boxes_each_is_answered_as_its_own_request_would_be() -> None:
    runner = Runner()
    answering = answering_of(runner)
    answer = await enrich(answering, boxes=[{"id": f"b{n}", "bbox": box} for n, box in enumerate(BOXES)])
    assert set(answer["results"]) == {"pose_estimator", "threat_detector", "depth_estimator"}
    calls = [name for name, _ in runner.calls]
    assert (calls.count("threat_detector"), calls.count("depth_estimator")) == (1, 1)
    for box, sent in zip(answer["boxes"], BOXES, strict=True):
        assert set(box["results"]) == {"person_reid", "pet_classifier", "depth_estimator"}
        assert box["errors"] == {}
        for name in ("person_reid", "pet_classifier"):
            assert untimed(box["results"][name]) == untimed(await alone(answering, CATALOGUE[name].route, bbox=sent))
        distance = await alone(answering, "/object-distance", bbox=sent, method="median")
        assert box["results"]["depth_estimator"] == {
            "median": round(1 - distance["relative_depth"], 4),
            "nearness": ("near", "middle", "far")[min(2, int(distance["relative_depth"] * 3))],
        }
    assert [box["id"] for box in answer["boxes"]] == ["b0", "b1", "b2"]
    assert answer["boxes"][1]["bbox"] == {"x": 10, "y": 10, "width": 60, "height": 40}


async def test_detectors_look_at_the_boxes_where_that_is_asked() -> None:
    answering = answering_of(Runner(people=1))
    answer = await enrich(answering, models=["pose", "threat"], boxes=BOXES, options={"threat": {"on": "boxes"}})
    assert set(answer["results"]) == {"pose_estimator"}
    for box, sent in zip(answer["boxes"], BOXES, strict=True):
        assert set(box["results"]) == {"threat_detector"}
        found = await alone(answering, "/threat-detect", bbox=sent)
        assert untimed(box["results"]["threat_detector"]) == untimed(found)


async def test_a_box_may_have_its_own_models() -> None:
    boxes = [{"bbox": BOXES[0], "models": ["reid"]}, {"bbox": BOXES[1], "models": ["depth"]}, {"bbox": BOXES[2]}]
    answer = await enrich(answering_of(Runner()), models=["pet"], boxes=boxes)
    asked = [list(box["results"]) for box in answer["boxes"]]
    assert asked == [["person_reid"], ["depth_estimator"], ["pet_classifier"]]


async def test_a_detector_looks_at_a_box_that_names_it_and_at_the_frame_where_the_call_does() -> None:
    boxes = [{"bbox": BOXES[0], "models": ["pose", "threat"]}, {"bbox": BOXES[1]}]
    answering = answering_of(Runner(people=1))
    answer = await enrich(answering, models=["depth", "pose"], boxes=boxes)
    assert set(answer["results"]) == {"pose_estimator", "depth_estimator"}
    first, second = answer["boxes"]
    assert set(first["results"]) == {"pose_estimator", "threat_detector"}
    assert set(second["results"]) == {"depth_estimator"}
    found = await alone(answering, "/pose-analyze", bbox=BOXES[0])
    assert untimed(first["results"]["pose_estimator"]) == untimed(found)


async def test_a_box_that_cannot_be_used_is_no_error_of_a_model_that_looks_at_the_frame() -> None:
    answer = await enrich(answering_of(Runner()), models=["pose", "reid"], boxes=[[5, 5, 1, 1], BOXES[0]])
    assert set(answer["boxes"][0]["errors"]) == {"person_reid"}


@pytest.mark.parametrize("boxes", [[[5, 5, 1, 1]], [[5, 5, 1, 1], [900, 900, 950, 950]], [[900, 900, 950, 950]]])
async def test_a_call_whose_boxes_are_all_unusable_fails(boxes: list[list[int]]) -> None:
    with pytest.raises(ApiError) as caught:
        await enrich(answering_of(Runner()), models=["reid"], boxes=boxes)
    assert caught.value.code == "invalid_request"


async def test_crops_of_one_call_are_computed_together() -> None:
    runner = Runner()
    boxes = [[n, n, n + 20, n + 20] for n in range(16)]
    answer = await enrich(answering_of(runner), models=["reid"], boxes=boxes)
    assert len([box for box in answer["boxes"] if "person_reid" in box["results"]]) == 16
    sizes = [size for name, size in runner.calls if name == "person_reid"]
    assert sum(sizes) == 16
    assert max(sizes) == CATALOGUE["person_reid"].traits.batch


async def test_a_box_that_cannot_be_used_fails_alone() -> None:
    boxes = [
        {"id": "good", "bbox": BOXES[0]},
        {"id": "empty", "bbox": [5, 5, 1, 1]},
        {"id": "out", "bbox": [900, 0, 950, 9]},
    ]
    answer = await enrich(answering_of(Runner()), models=["reid", "depth"], boxes=boxes)
    good, empty, out = answer["boxes"]
    assert (set(good["results"]), good["errors"]) == ({"person_reid", "depth_estimator"}, {})
    for box, said in ((empty, "x2 > x1"), (out, "outside")):
        assert box["results"] == {}
        assert {name: error["code"] for name, error in box["errors"].items()} == {
            "person_reid": "invalid_request",
            "depth_estimator": "invalid_request",
        }
        assert said in box["errors"]["person_reid"]["message"]
    assert (empty["bbox"], answer["errors"]) == (None, {})


@pytest.mark.parametrize("far", [1e9 - 1, 200_000, 500])
async def test_boxes_far_beyond_the_picture_are_drawn_at_its_edge(far: float) -> None:
    boxes = [[n, n, far, far] for n in range(10, 18)]
    body = json.dumps({"image": base64_of(IMAGE), "models": ["pet"], "boxes": boxes, "render": "overlay"}).encode()
    began = time.process_time()
    drawn = await answering_of(Runner()).answer("/enrich", Received("application/json", body, {}), Deadline.after(30))
    assert time.process_time() - began < 2  # each took a second
    picture = np.asarray(Image.open(io.BytesIO(drawn.data)).convert("RGB"))
    untouched = np.asarray(Image.open(io.BytesIO(IMAGE)).convert("RGB"))[:9, :9].astype(int)
    assert np.abs(picture[:6, :6].astype(int) - untouched[:6, :6]).max() < 60  # no stub in the corner


@pytest.mark.parametrize(
    ("pose", "code"), [("failing", "model_unavailable"), ("raising", "internal"), ("slow", "timeout")]
)
async def test_a_model_that_fails_fails_alone(pose: str, code: str) -> None:
    answer = await enrich(answering_of(Runner(pose=pose)), models=["pose", "threat", "reid"], seconds=2)
    assert set(answer["results"]) == {"threat_detector", "person_reid"}
    assert {name: error["code"] for name, error in answer["errors"].items()} == {"pose_estimator": code}
    assert "bug" not in json.dumps(answer)


async def test_a_model_served_elsewhere_is_left_out_unless_it_is_asked_for() -> None:
    answering = answering_of(Runner(), without=["pose_estimator"])
    assert "pose_estimator" not in (await enrich(answering))["results"]
    asked = await enrich(answering, models=["pose", "reid"])
    assert asked["errors"]["pose_estimator"]["code"] == "model_not_assigned"
    with pytest.raises(ApiError) as caught:
        await enrich(answering, models=["pose"])
    assert caught.value.code == "model_not_assigned"


async def test_an_image_that_cannot_be_used_fails_the_call() -> None:
    broken = Received("image/png", b"\x89PNG\r\n\x1a\nno", {})
    with pytest.raises(ApiError) as caught:
        await answering_of(Runner()).answer("/enrich", broken, Deadline.after(30))
    assert caught.value.code == "invalid_image"


async def test_a_call_counts_by_its_boxes() -> None:
    runner = Runner()
    answering = answering_of(runner)
    await enrich(answering, models=["reid"], seconds=10)
    queue = answering._queues["person_reid"]
    queue._takes_s = queue._between_s = 0.2
    few = await enrich(answering, models=["reid", "pet"], boxes=BOXES, seconds=10)
    assert all("person_reid" in box["results"] for box in few["boxes"])
    sixty = [[n, 0, n + 9, 9] for n in range(60)]
    queue._takes_s = queue._between_s = 0.2
    alone = await enrich(answering, models=["reid", "pet"], boxes=sixty, seconds=20)
    assert all("person_reid" in box["results"] for box in alone["boxes"])  # waiting for an idle model would not help
    queue._takes_s = queue._between_s = 0.2
    queue._working[_Group((), time.monotonic())] = asyncio.get_running_loop().create_future()
    many = await enrich(answering, models=["reid", "pet"], boxes=sixty, seconds=10)
    assert {box["errors"]["person_reid"]["code"] for box in many["boxes"]} == {"overloaded"}
    assert all("pet_classifier" in box["results"] for box in many["boxes"])


async def test_who_hangs_up_is_not_computed_further() -> None:
    runner = Runner()
    runner.hold.clear()
    answering = answering_of(runner)
    deadline = Deadline.after(30)
    body = json.dumps({"image": base64_of(IMAGE), "models": ["reid"], "boxes": [[n, 0, n + 9, 9] for n in range(40)]})
    received = Received("application/json", body.encode(), {})
    task = asyncio.create_task(answering.answer("/enrich", received, deadline))
    while not runner.calls:
        await asyncio.sleep(0.01)
    task.cancel()
    deadline.abandon()
    runner.hold.set()
    await asyncio.gather(task, return_exceptions=True)
    await alone(answering, "/person-reid")
    assert sum(size for _, size in runner.calls) < 40
    assert answering._surveyor._prepared._held == 0


def test_prepared_images_are_bounded_and_freed_with_their_call() -> None:
    held = PreparedImages(100)
    with held.of_call() as first:
        first(1000)  # alone, it may be larger
        with held.of_call() as second, pytest.raises(ApiError) as caught:
            second(1)
        assert caught.value.code == "overloaded"
    with held.of_call() as third:
        third(60)
        with pytest.raises(ApiError):
            third(41)
        third(40)
    assert held._held == 0
    with pytest.raises(Abandoned):
        third(1)  # a thread that still prepares for a caller who has gone


async def test_tiles_of_many_boxes_are_bounded_and_the_boxes_that_fit_are_answered() -> None:
    answering = answering_of(Runner(), settings=load(DEFAULT_FILE, {}))
    answering._surveyor._prepared._most_bytes = 8_000_000
    stripes = encoded(plain((9, 8, 7), (6000, 300)))
    request = {"image_base64": base64_of(stripes), "models": ["pose"], "options": {"pose": {"on": "boxes"}}}
    body = json.dumps(request | {"boxes": [[n, 0, 5990, 300] for n in range(8)]}).encode()
    answered = await answering.answer("/enrich", Received("application/json", body, {}), Deadline.after(30))
    boxes = json.loads(answered.data)["boxes"]
    errors = [box["errors"]["pose_estimator"]["code"] for box in boxes if box["errors"]]
    assert set(errors) == {"overloaded"}
    assert 0 < len(errors) < 8
    assert answering._surveyor._prepared._held == 0


async def test_times_are_split() -> None:
    answer = await enrich(answering_of(Runner()), models=["reid"])
    assert set(answer["timings"]) == {"read_ms", "decode_ms", "prepare_ms", "models"}
    assert answer["inference_time_ms"] > 0


async def test_all_answers_are_drawn_on_one_picture() -> None:
    answering = answering_of(Runner(people=1))
    received = Received("image/png", IMAGE, {"render": "overlay"}, accept="image/png")
    body = await answering.answer("/enrich", received, Deadline.after(30))
    picture = Image.open(io.BytesIO(body.data))
    assert (body.media_type, picture.size) == ("image/png", (80, 60))
    assert set(json.loads(picture.info["Comment"])["results"]) == set(CATALOGUE)
    assert (np.asarray(picture.convert("RGB")) != (9, 8, 7)).any()


def test_each_box_is_encoded_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"read_ms": 1.0, "decode_ms": 1.0, "prepare_ms": 1.0, "models": {}}
    boxes: list[dict[str, Any]] = [{"id": str(n), "bbox": None, "results": {}, "errors": {}} for n in range(3)]
    rest = {"image": {"width": 1, "height": 2}, "results": {}, "errors": {}, "timings": times, "inference_time_ms": 0}
    encoded_at_once = []
    for kind in (EnrichResponse, BoxAnswer):
        dump = kind.model_dump_json

        def noted(self: Any, *, dump: Any = dump, **options: Any) -> str:
            encoded_at_once.append(text := dump(self, **options))
            return str(text)

        monkeypatch.setattr(kind, "model_dump_json", noted)
    for number in (0, 3):
        encoded_at_once.clear()
        response = EnrichResponse.model_validate({**rest, "boxes": boxes[:number]})
        assert json.loads(enrichment._encoded(response)) == response.model_dump(exclude_unset=True)
        assert len(encoded_at_once) == 1 + number
