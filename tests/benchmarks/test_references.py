"""Which answers are told from their reference: other numbers, pixels, keys and kinds, but not times."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.references import unlike


def png(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


GREY = np.full((8, 8), 100, np.uint8)
DEPTH = np.full((8, 8), 0.5, np.float32)


def told(**fields: Any) -> bytes:
    return json.dumps({"score": 0.5, "boxes": [{"x": 10}], "inference_ms": 3.0} | fields).encode()


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (told(), told(inference_ms=99.0)),
        (told(), told(score=0.5001)),
        (
            told(map_base64=base64.b64encode(png(GREY)).decode()),
            told(map_base64=base64.b64encode(png(GREY + 1)).decode()),
        ),
        (png(GREY), png(GREY + 1)),
        (png(GREY.astype(np.uint16) * 256), png(GREY.astype(np.uint16) * 256 + 200)),
        (npy(DEPTH), npy(DEPTH + 0.001)),
    ],
)
def test_last_digits_and_times_are_no_difference(reference: bytes, answer: bytes) -> None:
    assert unlike(reference, answer) is None


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (told(), told(score=0.6)),
        (told(), told(score=float("nan"))),
        (told(), told(boxes=[])),
        (told(), told(boxes=[{"y": 10}])),
        (told(), told(boxes=[{"x": 11}])),
        (
            told(map_base64=base64.b64encode(png(GREY)).decode()),
            told(map_base64=base64.b64encode(png(GREY + 50)).decode()),
        ),
        (png(GREY), png(GREY + 50)),
        (png(GREY), png(GREY[:4])),
        (png(GREY), npy(GREY)),
        (npy(DEPTH), npy(DEPTH + 0.3)),
        (npy(DEPTH), npy(np.full_like(DEPTH, np.nan))),
        (npy(DEPTH), npy(DEPTH.astype(np.float64))),
        (b"<html>", b"<htm"),
        *((whole, whole[: len(whole) // 2]) for whole in (told(), png(GREY), npy(DEPTH))),
        *((whole, b"") for whole in (told(), png(GREY), npy(DEPTH))),
    ],
)
def test_other_answers_are_told(reference: bytes, answer: bytes) -> None:
    assert unlike(reference, answer)
