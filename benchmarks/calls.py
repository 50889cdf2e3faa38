"""Calls to every route of the service, with pictures of all formats: right ones, and some that must be refused."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from api.deepstack_shapes import ASKED
from models.catalogue import CATALOGUE

# Width and height → how often calls with such a picture are sent, so that small ones make the number.
_SIZES: Final = {(64, 48): 16, (320, 240): 8, (640, 480): 2, (1280, 720): 1}
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_BOX: Final = [8, 8, 56, 40]
_STATES: Final = ("/health", "/models", "/models/status", "/models/pose_estimator", "/metrics")
_PAGES: Final = (
    *("/livez", "/healthz", "/readyz", "/", "/docs", "/openapi.json", "/docs.json"),
    *("/v1/vision/custom/list", "/v1/status/ping", "/v1/status/updateavailable"),
    *("/v1/server/status/ping", "/v1/server/status/updateavailable"),
)
_OF_GETS: Final = 8  # the share of each
_DRAWN: Final = ("/pose-analyze", "/threat-detect", "/pet-classify")
_MAPS: Final[Sequence[Mapping[str, Any]]] = (
    {"format": "png8"},
    {"format": "png16"},
    {"format": "npy"},
    {"colormap": "turbo"},
)
_STRANGERS: Final = 50  # candidates of a match that are nobody in the pictures
_MOST_STRANGERS: Final = 999
_SEED: Final = 7

Embedding = Mapping[str, Any]  # an answer of /person-reid


@dataclass(frozen=True)
class Call:
    """A request. status: of the right answer. body: None = GET. varies: the answer shows states, which change.

    share: how often it is sent, beside others.
    """

    path: str
    body: bytes | None
    content_type: str
    status: int = 200
    varies: bool = False
    share: int = 1

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


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


def embeddings(files: Sequence[bytes]) -> list[Call]:
    """Return the calls whose answers `right` needs."""
    return [_json("/person-reid", file) for file in files]


def right(files: Sequence[bytes], embedded: Sequence[Embedding]) -> list[Call]:
    """Every route with every picture, as JSON, a form or the raw file in turn. embedded: of each file."""
    calls = [Call(path, None, "", varies=True, share=_OF_GETS) for path in _STATES]
    calls += [Call(path, None, "", share=_OF_GETS) for path in _PAGES]
    calls.append(Call("/v1/vision/custom/list", b"", ""))
    shares = [share for share in _SIZES.values() for _ in _FORMATS]
    for number, (file, embedding, share) in enumerate(zip(files, embedded, shares, strict=False)):
        asked = [
            *(_sent(spec.route, file, number + turn) for turn, spec in enumerate(CATALOGUE.values())),
            *(_form(route, image=file) for route in ASKED),
            *_several(file),
            *(_json(f"{route}?render=overlay", file) for route in _DRAWN),
            _json("/depth-estimate", file, **_MAPS[number % len(_MAPS)]),
            *_people(file, embedding, _STRANGERS),
        ]
        calls += [replace(call, share=share) for call in asked]
    return [*calls, _people(files[0], embedded[0], _MOST_STRANGERS)[-1]]


def _several(file: bytes) -> list[Call]:
    boxes = [{"id": "a", "bbox": _BOX}, {"id": "b", "bbox": [0, 0, 64, 48]}]
    return [
        _json("/enrich", file, boxes=boxes),
        _json("/enrich?render=overlay", file, boxes=boxes),
        _json("/object-distance", file, bbox=_BOX, method="median"),
    ]


def _people(file: bytes, embedding: Embedding, strangers: int) -> list[Call]:
    """Comparisons of a picture with itself, and a match that finds it among strangers."""
    subject = {"image": base64.b64encode(file).decode()}
    known = {"embedding": embedding["embedding"], "model_id": embedding["model_id"]}
    vectors = np.random.default_rng(_SEED).normal(size=(strangers, len(embedding["embedding"]))).astype("<f4")
    others = [{**known, "embedding": base64.b64encode(vector.tobytes()).decode()} for vector in vectors]
    candidates = [{"id": str(number), **one} for number, one in enumerate([*others, known])]
    return [
        _of("/person-reid/compare", {"first": subject, "second": {**subject, "bbox": _BOX}}),
        _of("/person-reid/compare", {"first": known, "second": others[0]}),
        _form("/person-reid/compare", first=file, second=file),
        _of("/person-reid/match", {"query": known, "candidates": candidates, "top": 3}),
        _of("/person-reid/match", {"query": subject, "candidates": candidates, "top": 3}),
    ]


def wrong(files: Sequence[bytes]) -> list[Call]:
    """Requests that are a caller's mistake."""
    file = files[0]
    routes = [spec.route for spec in CATALOGUE.values()]
    return [
        *(Call(route, file[: len(file) // 2], "image/jpeg", 400) for route in (*routes, "/enrich", *ASKED)),
        Call("/pose-analyze", b"{", "application/json", 400),
        _json("/threat-detect", file, 422, bbox=[9, 9, 1, 1]),
        _json("/pet-classify", file, 422, min_confidence=7),
        _json("/person-reid?render=overlay", file, 422),
        Call("/depth-estimate", b"<svg/>", "image/svg+xml", 415),
        Call("/person-reid/match", b"{}", "application/json", 422),
        Call("/v1/vision/face", b"", "", 403),
        Call("/models/unload-all", b"", "", 403),  # management is off
        Call("/models/nobody", None, "", 404),
        Call("/nowhere", None, "", 404),
        Call("/pose-analyze", None, "", 405),
    ]


def _sent(route: str, file: bytes, turn: int) -> Call:
    if turn % 3 == 0:
        return _json(route, file)
    if turn % 3 == 1:
        return Call(route, file, "application/octet-stream")
    return _form(route, image=file)


def _form(route: str, **files: bytes) -> Call:
    parts = [
        f'--soak\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode() + file + b"\r\n"
        for name, file in files.items()
    ]
    return Call(route, b"".join(parts) + b"--soak--\r\n", "multipart/form-data; boundary=soak")


def _json(path: str, file: bytes, status: int = 200, **fields: Any) -> Call:
    return _of(path, {"image_base64": base64.b64encode(file).decode(), **fields}, status)


def _of(path: str, body: Mapping[str, Any], status: int = 200) -> Call:
    return Call(path, json.dumps(body).encode(), "application/json", status)
