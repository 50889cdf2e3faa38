from __future__ import annotations

import json
from typing import Any

import pytest

from api.enrich_request import EnrichRequest, parse
from api.errors import ApiError
from api.request import Received
from tests.api.bodies import BASE64, IMAGE, LIMIT, as_form, as_json, as_raw

BOX = [10, 20, 30, 40]


def read(received: Received) -> EnrichRequest:
    return parse(received, LIMIT)


def refused(received: Received) -> str:
    with pytest.raises(ApiError) as caught:
        read(received)
    assert caught.value.code == "invalid_request"
    return str(caught.value.details[0]["field"])


def asked(**fields: Any) -> Received:
    return as_json({"image_base64": BASE64, **fields})


def test_an_image_alone_asks_all_models_about_the_whole() -> None:
    for received in (asked(), as_form(("image", IMAGE)), as_raw(IMAGE), asked(models=None, boxes=None, bbox=None)):
        request = read(received)
        assert (request.image, request.models, request.boxes) == (IMAGE, None, [])


@pytest.mark.parametrize(
    "models",
    [
        ["pose_estimator", "depth_estimator"],
        ["pose", "depth"],
        "pose,depth_estimator",
        "pose, depth",
        ["yolov8n-pose", "depth-anything-v2-small", "pose"],
        ["pose,depth"],
    ],
)
def test_models_have_three_names(models: Any) -> None:
    assert read(asked(models=models)).models == ("pose_estimator", "depth_estimator")


def test_models_come_in_every_kind_of_body() -> None:
    both = ("pose_estimator", "person_reid")
    assert read(as_form(("image", IMAGE), ("models", "pose"), ("models", "reid"))).models == both
    assert read(as_form(("image", IMAGE), ("models", '["pose", "reid"]'))).models == both
    assert read(Received("image/png", IMAGE, {"models": ["pose", "reid"]})).models == both
    assert read(Received("image/png", IMAGE, {"models[0]": "pose", "models[1]": "reid"})).models == both
    assert read(Received("image/png", IMAGE, {"models": ["pose,reid"]})).models == both


@pytest.mark.parametrize(
    "models", [[], ",", ["", ""], [" , "], "yolo", ["pose", 3], {"pose": True}, 7, "[", [["pose"]], ["POSE "]]
)
def test_other_models_are_refused(models: Any) -> None:
    assert refused(asked(models=models)) == "models"


def test_boxes_in_every_form() -> None:
    boxes = [
        {"id": "a", "bbox": BOX},
        BOX,
        {"bbox": {"x": 10, "y": 20, "width": 20, "height": 20}, "models": ["pet"]},
        {"id": 7, "x1": 10, "y1": 20, "x2": 30, "y2": 40},
    ]
    for received in (asked(boxes=boxes), as_form(("image", IMAGE), ("boxes", json.dumps(boxes)))):
        read_boxes = read(received).boxes
        assert [box.id for box in read_boxes] == ["a", "1", "2", "7"]
        assert [box.box for box in read_boxes] == [tuple(map(float, BOX))] * 4
        assert [box.models for box in read_boxes] == [None, None, ("pet_classifier",), None]


def test_one_bbox_is_a_box() -> None:
    (box,) = read(asked(bbox=BOX)).boxes
    assert (box.id, box.box, box.models) == ("0", tuple(map(float, BOX)), None)


@pytest.mark.parametrize("bad", [[5, 5, 1, 1], "x", None, [1, 2], {"x": 1}, [0.1, 0.1, 0.4, 0.4], {"id": "b"}, 3, {}])
def test_a_bad_box_is_that_boxs_error_alone(bad: Any) -> None:
    good, other = read(asked(boxes=[BOX, bad])).boxes
    assert good.box == tuple(map(float, BOX))
    assert isinstance(other.box, ApiError)
    assert other.box.details[0]["field"] == "boxes[1].bbox"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"boxes": {"bbox": BOX}}, "boxes"),
        ({"boxes": [BOX] * 65}, "boxes"),
        ({"boxes": "[[1,2"}, "boxes"),
        ({"boxes": [{"id": "a", "bbox": BOX}, {"id": "a", "bbox": BOX}]}, "boxes"),
        ({"boxes": [{"id": "1", "bbox": BOX}, BOX]}, "boxes"),
        ({"boxes": [{"id": "", "bbox": BOX}]}, "boxes[0].id"),
        ({"boxes": [{"id": True, "bbox": BOX}]}, "boxes[0].id"),
        ({"boxes": [{"id": "x" * 65, "bbox": BOX}]}, "boxes[0].id"),
        ({"boxes": [{"bbox": BOX, "label": "cat"}]}, "boxes[0]"),
        ({"boxes": [{"bbox": BOX, "models": ["yolo"]}]}, "boxes[0].models"),
        ({"boxes": [{"bbox": BOX, "models": ["", ""]}]}, "boxes[0].models"),
        ({"boxes": [BOX], "bbox": BOX}, "bbox"),
        ({"options": ["pose"]}, "options"),
        ({"options": {"yolo": {}}}, "options"),
        ({"options": {"pose": 3}}, "options.pose"),
        ({"options": {"pose": {"map": True}}}, "options.pose"),
        ({"options": {"reid": {"min_confidence": 0.5}}}, "options.reid"),
        ({"options": {"pose": {"min_confidence": 40}}}, "options.pose.min_confidence"),
        ({"options": {"pose": {"on": "crops"}}}, "options.pose.on"),
        ({"options": {"depth": {"map": "perhaps"}}}, "options.depth.map"),
        ({"options": {"depth": {"map": 1}}}, "options.depth.map"),
        ({"options": {"pose": {}, "pose_estimator": {}}}, "options.pose_estimator"),
        ({"min_confidence": 2}, "min_confidence"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(fields: dict[str, Any], field: str) -> None:
    assert refused(asked(**fields)) == field


def test_options_for_one_model_go_before_those_for_all() -> None:
    own = {"pose": {"min_confidence": 0.4, "on": "boxes"}, "depth": {"map": "true"}}
    request = read(asked(min_confidence=0.7, min_keypoint_confidence=0.2, options=own))
    assert request.options["pose_estimator"] == {"min_confidence": 0.4, "min_keypoint_confidence": 0.2, "on": True}
    assert request.options["threat_detector"] == {"min_confidence": 0.7}
    assert request.options["depth_estimator"] == {"map": True}
    assert request.options["person_reid"] == {}


def test_options_that_are_null_are_as_if_not_sent() -> None:
    # Generated clients write every member.
    assert read(asked(options={"pose_estimator": None, "reid": None})) == read(asked())
    request = read(asked(options={"pose": None, "threat": {"min_confidence": 0.4}}))
    assert request.options["threat_detector"] == {"min_confidence": 0.4}


@pytest.mark.parametrize("name", ["\ud800", "a\udfff", "\udc00\ud800"])
def test_an_id_that_no_answer_can_repeat_is_refused(name: str) -> None:
    boxes = [{"id": name, "bbox": BOX}]
    assert refused(asked(boxes=boxes)) == "boxes[0].id"
    assert refused(as_form(("image", IMAGE), ("boxes", json.dumps(boxes)))) == "boxes[0].id"


def test_an_id_outside_the_first_plane_is_kept() -> None:
    assert read(asked(boxes=[{"id": "😀", "bbox": BOX}])).boxes[0].id == "😀"
