from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from api import box
from api.errors import ApiError
from api.request import Received
from tests.api.bodies import BASE64, IMAGE, SECRET, as_form, as_json, as_raw, as_urlencoded, read, refused_field

BOX = (1, 2, 30, 40)


def box_of(value: object) -> Any:
    return read(as_json({"image": BASE64, "bbox": value})).box


def message_about(value: object) -> str:
    field, message = refused_field(as_json({"image": BASE64, "bbox": value}))
    assert field == "bbox"
    return message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2, 30, 40], BOX),
        ([1.5, 2, 30.25, 40], (1.5, 2, 30.25, 40)),
        ([-5, -5, 1e8, 1e8], (-5, -5, 1e8, 1e8)),
        (["1", "2.0", " 30 ", "4e1"], BOX),
        ({"x": 1, "y": 2, "width": 29, "height": 38}, BOX),
        ({"x": 1, "y": 2, "w": 29, "h": 38}, BOX),
        ({"x": "1", "y": "2", "width": "29", "height": "38"}, BOX),
        ({"left": 1, "top": 2, "width": 29, "height": 38}, BOX),
        ({"Left": 1, "Top": 2, "Width": 29, "Height": 38}, BOX),
        ({"left": 1, "top": 2, "right": 30, "bottom": 40}, BOX),
        ({"x1": 1, "y1": 2, "x2": 30, "y2": 40}, BOX),
        ({"x0": 1, "y0": 2, "x1": 30, "y1": 40}, BOX),
        ({"x_min": 1, "y_min": 2, "x_max": 30, "y_max": 40}, BOX),
        ({"xmin": 1, "ymin": 2, "xmax": 30, "ymax": 40}, BOX),
        ({"xMin": 1, "yMin": 2, "xMax": 30, "yMax": 40}, BOX),
        ({"x_min": 1, "y_min": 2, "width": 29, "height": 38}, BOX),
        ({"x": 1, "y": 2, "width": 29, "height": 38, "left": 1, "top": 2, "right": 30, "bottom": 40}, BOX),
        ({"x": 1, "y": 2, "width": 3, "height": 4, "confidence": 0.9, "label": "person", "x2": None}, (1, 2, 4, 6)),
        (None, None),
        ("null", None),
        ("", None),
    ],
)
def test_a_box_in_each_of_its_forms(value: object, expected: tuple[float, ...] | None) -> None:
    assert box_of(value) == expected


TEXTS = [
    "1,2,30,40",
    " 1, 2, 30, 40 ",
    "1 2 30 40",
    "1;2;30;40",
    "(1, 2, 30, 40)",
    "[1 2 30 40]",
    "[1, 2, 30, 40]",
    '{"x1": 1, "y1": 2, "x2": 30, "y2": 40}',
    '["1", "2", "30", "40"]',
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_box_as_text(text: str) -> None:
    assert box_of(text) == BOX
    assert read(as_form(("image", IMAGE), ("bbox", text))).box == BOX
    assert read(as_raw(bbox=text)).box == BOX


def test_a_list_as_httpx_requests_and_php_send_it() -> None:
    values = ["1", "2", "30", "40"]
    for name in ("bbox", "bbox[]"):
        assert read(as_form(("image", IMAGE), *((name, value) for value in values))).box == BOX
        assert read(Received("image/png", IMAGE, {name: values})).box == BOX
        pairs = "&".join(f"{name}={value}" for value in values)
        assert read(as_urlencoded(f"image={BASE64}&{pairs}")).box == BOX


@pytest.mark.parametrize("text", ["", "  ", "null", "None", "undefined"])
def test_an_empty_option_of_a_form_is_none(text: str) -> None:
    assert read(as_form(("image", IMAGE), ("bbox", text), ("min_confidence", text))).box is None


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [],
        {},
        7,
        True,
        "1,2,3",
        "left",
        "[1,2,3",
        "nan,nan,nan,nan",
        [1, 2, None, 40],
        [True, 2, 30, 40],
        [math.nan, 2, 30, 40],
        [1, 2, math.inf, 40],
        [1, 2, 10**10, 40],
        [1, 2, 10**400, 40],
        [1, 2, "3_0", 40],
        [1, 2, "３０", 40],
        [1, 2, "", 40],
        [1, 2, 1, 40],
        [30, 2, 1, 40],
        [1, 40, 30, 2],
        {"x": 1, "y": 2, "width": 0, "height": 4},
        {"x": 1, "y": 2, "width": -3, "height": 4},
        {"x": 1, "y": 2, "width": [3], "height": 4},
        {"x": 1, "y": 2, "width": True, "height": 4},
        {"x": 1, "y": 2, "width": 10**400, "height": 4},
        {"x1": 1, "y1": 2, "x2": 30},
        {"x": 1, "y": 2},
        {"cx": 1, "cy": 2, "w": 30, "h": 40},
        {"x": 1, "y": 2, "width": 29, "height": 38, "x2": 31},
        {"x": 1, "left": 2, "y": 2, "width": 29, "height": 38},
        [SECRET] * 4,
        {SECRET: SECRET},
        SECRET,
        "9" * 100_000,
        "[" * 15_000,
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_bad_box_is_refused_with_its_name(value: object) -> None:
    assert message_about(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2, 3], "[1, 2, 3] with 3 usable numbers was received; send [x1, y1, x2, y2], {x1, y1, x2, y2}, {x, y,"),
        (7, "7 was received; send [x1"),
        ("left", "a text of length 4 was received; send [x1"),
        ("1,2,3", "a list of length 3 with 3 usable numbers was received; send [x1"),
        ({}, "too few of the known keys was received (none)"),
        ({"x": 1, "y": 2}, "too few of the known keys was received (x, y)"),
        ({"x": 1, "y": 2, "width": "wide", "height": 4}, "width must be a number below 10⁹; a text of length 4"),
        ({"x": 1, "y": 2, "width": 9, "height": 9, "x2": 12}, "keys contradict each other"),
        ([30, 2, 1, 40], "corners [30, 2, 1, 40] were received"),
        ([[1, 2, 30, 40]], "a list of lists or objects was received; send one box in a request"),
        ([[1, 2], [30, 40]], "a list of lists or objects was received"),
        ([{"x1": 1, "y1": 2, "x2": 30, "y2": 40}], "a list of lists or objects was received"),
        ("[[1, 2, 30, 40]]", "a list of lists or objects was received"),
        (["x1", "y1", "x2", "y2"], "names of coordinates were received without their values: BentoML's client"),
        (["x", "y", "width", "height"], "names of coordinates were received without their values"),
        ('["x1", "y1", "x2", "y2"]', "names of coordinates were received without their values"),
    ],
    ids=repr,
)
def test_a_refusal_says_what_was_received_and_what_is_accepted(value: object, said: str) -> None:
    assert said in message_about(value)


@pytest.mark.parametrize(
    "value",
    [
        [0.1, 0.2, 0.5, 0.9],
        [0, 0, 1, 1],
        [0, 0, 1, 0.5],
        ["0.1", "0.2", "0.5", "0.9"],
        [-0.02, 0.1, 1.004, 0.98],
        {"x": 0.1, "y": 0.2, "width": 0.4, "height": 0.7},
        {"x": 0.9, "y": 0.9, "width": 0.3, "height": 0.3},
        {"x": 1, "y": 1, "width": 1, "height": 1},
        {"Left": 0.1, "Top": 0.2, "Width": 0.4, "Height": 0.7},
        {"x1": 0.1, "y1": 0.2, "x2": 0.5, "y2": 0.9},
        {"x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1},
        "0.1,0.2,0.5,0.9",
    ],
    ids=repr,
)
def test_a_box_in_fractions_is_refused_and_pixels_are_named(value: object) -> None:
    message = message_about(value)
    assert message.startswith("looks normalised: [")
    assert "the unit is pixels of the upright image, so multiply by its width and height" in message


@pytest.mark.parametrize(
    "value", [[0, 0, 2, 2], [0, 0, 1, 2], [1, 1, 2, 2], [0.5, 0.5, 2.5, 2], [-100, -100, 1, 1], [0, 0, 0.5, 300]]
)
def test_a_small_box_in_pixels_is_taken(value: list[float]) -> None:
    assert box_of(value) == tuple(value)


@pytest.mark.parametrize(
    "value",
    [
        *("1 " * 500_000, "[" * 1_000_000, "9" * 1_000_000, json.dumps(["x1"] * 100_000)),
        *(["x1"] * 1_000_000, [[1, 2, 3, 4]] * 1_000_000, {str(number): 1 for number in range(500_000)}),
    ],
    ids=["words", "brackets", "digits", "text", "names", "lists", "keys"],
)
def test_a_huge_value_in_place_of_a_box_is_refused_quickly(value: object) -> None:
    began = time.monotonic()
    with pytest.raises(ApiError):
        box.parse("bbox", value)
    assert time.monotonic() - began < 0.3


def test_a_box_of_zeros_is_not_said_to_be_normalised() -> None:
    with pytest.raises(ApiError, match="x2 > x1"):
        box.parse("bbox", [0, 0, 0, 0])
