"""Calls to every route of the service, with pictures of all formats: right ones, and some that must be refused."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from models.catalogue import CATALOGUE

_SIZES: Final = ((64, 48), (320, 240), (640, 480), (1280, 720))
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_BOX: Final = [8, 8, 56, 40]
# Not the same in two answers: times, and the words and files that follow from numbers.
_VARYING: Final = ("_ms", "timings", "reason", "depth_map_base64", "uptime_seconds", "last_used", "loaded_at")
_TOLERANCE: Final = 0.02  # a batch of another size changes the last digits


@dataclass(frozen=True)
class Call:
    """A request. status: of the right answer. body: None = GET."""

    path: str
    body: bytes | None
    content_type: str
    status: int = 200


def pictures() -> list[bytes]:
    """Drawn scenes in all formats and sizes."""
    return [_picture(size, form) for size in _SIZES for form in _FORMATS]


def _picture(size: tuple[int, int], form: str) -> bytes:
    width, height = size
    image = Image.fromarray(np.indices((height, width)).sum(axis=0).astype(np.uint8)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 4, height // 4, width // 2, height - 2), fill=(0, 255, 0))
    draw.ellipse((width // 2, 2, width - 2, height // 2), fill=(200, 90, 40))
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def right(files: Sequence[bytes]) -> list[Call]:
    """Every route with every picture, as JSON, a form or the raw file in turn."""
    calls = [Call(path, None, "") for path in ("/health", "/models", "/models/pose_estimator", "/models/status")]
    for number, file in enumerate(files):
        for turn, spec in enumerate(CATALOGUE.values()):
            calls.append(_sent(spec.route, file, number + turn))
        calls.append(_json("/enrich", file, boxes=[{"id": "a", "bbox": _BOX}, {"id": "b", "bbox": [0, 0, 64, 48]}]))
        calls.append(_json("/object-distance", file, bbox=_BOX, method="median"))
        calls.append(_json("/pose-analyze?render=overlay", file))
        calls.append(_json("/depth-estimate", file, format="png8", colormap="turbo"))
        subject = {"image": base64.b64encode(file).decode()}
        calls.append(_of("/person-reid/compare", {"first": subject, "second": {**subject, "bbox": _BOX}}))
    return calls


def wrong(files: Sequence[bytes]) -> list[Call]:
    """Requests that are a caller's mistake."""
    file = files[0]
    routes = [spec.route for spec in CATALOGUE.values()]
    return [
        *(Call(route, file[: len(file) // 2], "image/jpeg", 400) for route in (*routes, "/enrich")),
        Call("/pose-analyze", b"{", "application/json", 400),
        _json("/threat-detect", file, 422, bbox=[9, 9, 1, 1]),
        _json("/pet-classify", file, 422, min_confidence=7),
        Call("/depth-estimate", b"<svg/>", "image/svg+xml", 415),
        Call("/person-reid/match", b"{}", "application/json", 422),
        Call("/models/nobody", None, "", 404),
        Call("/nowhere", None, "", 404),
    ]


def _sent(route: str, file: bytes, turn: int) -> Call:
    if turn % 3 == 0:
        return _json(route, file)
    if turn % 3 == 1:
        return Call(route, file, "application/octet-stream")
    head = b'--soak\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return Call(route, head + file + b"\r\n--soak--\r\n", "multipart/form-data; boundary=soak")


def _json(path: str, file: bytes, status: int = 200, **fields: Any) -> Call:
    return _of(path, {"image_base64": base64.b64encode(file).decode(), **fields}, status)


def _of(path: str, body: Mapping[str, Any], status: int = 200) -> Call:
    return Call(path, json.dumps(body).encode(), "application/json", status)


def unlike(reference: bytes, answer: bytes) -> str | None:
    """Say where an answer differs from the reference; None if it does not. Pictures are compared by their size."""
    if not reference.startswith((b"{", b"[")):
        sizes = [Image.open(io.BytesIO(data)).size for data in (reference, answer)]
        return None if sizes[0] == sizes[1] else f"a picture of {sizes[1]}, {sizes[0]} expected"
    return next(_differences("", json.loads(reference), json.loads(answer)), None)


def _differences(path: str, one: Any, other: Any) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            yield f"{path} has other keys"
        for key in one.keys() & other.keys():
            if not key.endswith(_VARYING):
                yield from _differences(f"{path}.{key}", one[key], other[key])
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _differences(f"{path}[{at}]", first, second)
    elif isinstance(one, float) and isinstance(other, float | int):
        if not abs(one - other) <= _TOLERANCE * max(1, abs(one)):
            yield f"{path} is {other}, {one} was expected"
    elif one != other:
        yield f"{path} is {str(other)[:60]}, {str(one)[:60]} was expected"
