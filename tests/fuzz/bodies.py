"""Requests of every kind, whole and broken, as hypothesis makes and shrinks them."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote_plus

from hypothesis import strategies as st

from api.request import Received
from models.catalogue import CATALOGUE
from vision.depth_map import COLORMAPS, FORMATS

LIMIT: Final = 20_000  # bytes of an image; small, so that cases reach it

# ── values ──

_TEXTS: Final = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.sampled_from(["\ud800", "a\udfff", "\udc00\ud800"]),  # lone surrogates: JSON can escape them
    st.sampled_from(
        ["", "null", "nan", "1e999", "0x10", "[1,2,3,4]", "1 2 3 4", "{}", "[", '"', "../../etc", "\0", "９"]
    ),
)
_HUGE: Final = st.sampled_from([400, 4200]).map(lambda digits: 10**digits)
_NUMBERS: Final = st.one_of(
    st.floats(), st.integers(), _HUGE, st.sampled_from([0, -0.0, 0.5, 1, 1e9, 2**63, -(2**63), 5e-324])
)
_ATOMS: Final = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS)
_ANY: Final = st.recursive(
    _ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=2), max_leaves=4
)
_PIXELS: Final = st.integers(-20, 300) | st.floats(-20, 300)
_SIDES: Final = ("x", "y", "x1", "y1", "x2", "y2", "width", "height", "left", "top", "right", "bottom", "x_min", "yMax")
_CORNERS: Final = st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(91, 300), st.integers(91, 300)).map(
    list
)
_BOXES: Final = st.one_of(
    _CORNERS,
    _CORNERS.map(json.dumps),
    st.lists(_PIXELS | _ATOMS, max_size=6),
    st.dictionaries(st.sampled_from(_SIDES), _PIXELS | _ATOMS, max_size=6),
    _ANY,
)
_USUAL_MODELS: Final = st.lists(st.sampled_from([*CATALOGUE, "pose", "reid"]), min_size=1, max_size=4)
_MODELS: Final = st.one_of(
    _USUAL_MODELS,
    st.sampled_from(["pose, depth", "nobody", "pose,"]),
    _ANY,
)
_NAMED: Final = st.fixed_dictionaries(
    {"bbox": _BOXES}, optional={"id": _TEXTS | st.integers() | _ANY, "models": _USUAL_MODELS}
)
_MODEL_OPTIONS: Final = st.dictionaries(
    st.sampled_from(["min_confidence", "min_keypoint_confidence", "on", "map", "other"]),
    st.floats(0, 1) | st.sampled_from(["frame", "boxes", "true", True]) | _ANY,
    max_size=3,
)
_IMAGES: Final = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda data: base64.b64encode(data).decode()),
    st.binary(max_size=20).map(lambda data: "data:image/png;base64," + base64.urlsafe_b64encode(data).decode()),
    st.sampled_from([LIMIT * 4 // 3, LIMIT * 2]).map(lambda size: "A" * size),
    _ANY,
)
_VECTORS: Final = st.one_of(
    st.lists(st.floats(width=32), min_size=1, max_size=1).map(lambda some: some * 512),
    (st.sampled_from([0.5, 0, 1e308, -1e-308]) | _HUGE).map(lambda one: [one] * 512),
    st.binary(min_size=4, max_size=4).map(lambda one: base64.b64encode(one * 512).decode()),
    _ANY,
)
_SUBJECTS: Final = st.one_of(
    st.fixed_dictionaries({"embedding": _VECTORS, "model_id": st.sampled_from(["a", "b"]) | _ANY}),
    st.fixed_dictionaries({"image": _IMAGES}, optional={"bbox": _BOXES, "image_base64": _IMAGES}),
    _ANY,
)
_CANDIDATES: Final = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from(["p", "q"]) | _ANY, "embedding": _VECTORS, "model_id": st.just("a")}),
    min_size=1,
    max_size=3,
)
_FRACTIONS: Final = st.floats(0, 1) | _ANY
_FIELDS: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "image": _IMAGES,
    "bbox": _BOXES,
    "min_confidence": _FRACTIONS,
    "min_keypoint_confidence": _FRACTIONS,
    "method": st.sampled_from(["center", "median", "min", "mean"]) | _ANY,
    "near_m": st.floats(0, 9) | _ANY,
    "far_m": st.floats(9, 99) | _ANY,
    "render": st.sampled_from(["overlay", "json"]) | _ANY,
    "format": st.sampled_from(FORMATS) | _ANY,
    "colormap": st.sampled_from(tuple(COLORMAPS)) | _ANY,
    "models": _MODELS,
    "boxes": st.one_of(
        st.lists(_NAMED, min_size=1, max_size=4),
        st.lists(_NAMED, min_size=1, max_size=4).map(json.dumps),
        st.lists(_BOXES, max_size=4),
        st.integers(60, 70).map(lambda count: [[1, 2, 9, 9]] * count),
        _ANY,
    ),
    "options": st.dictionaries(st.sampled_from(["pose", "depth", "reid", "nobody"]), _MODEL_OPTIONS | _ANY, max_size=3),
    "first": _SUBJECTS,
    "second": _SUBJECTS,
    "query": _SUBJECTS,
    "candidates": _CANDIDATES | _ANY,
    "threshold": _FRACTIONS,
    "top": st.integers(-1, 5) | _ANY,
}
_EMBEDDED: Final = {"embedding": [0.5] * 512, "model_id": "a"}
# What each parser accepts, and the fields that it reads.
_USUAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "image": {"image": "AAAA"},
    "map": {"image": "AAAA", "format": "png"},
    "distance": {"image": "AAAA", "bbox": [1, 2, 30, 40]},
    "enrich": {"image": "AAAA", "boxes": [{"id": "a", "bbox": [1, 2, 30, 40], "models": ["pose"]}]},
    "compare": {"first": _EMBEDDED, "second": {"image": "AAAA"}},
    "match": {"query": _EMBEDDED, "candidates": [{"id": "p", **_EMBEDDED}]},
}
_OF_COMPARISON: Final = ("first", "second", "query", "candidates", "threshold", "top")
_OF_ENRICH: Final = ("boxes", "options", "models")


@st.composite
def _some_fields(draw: st.DrawFn, parser: str) -> dict[str, Any]:
    """What the parser accepts, with up to three fields drawn: few draws make a quick case."""
    if parser in ("compare", "match"):
        known = [*_USUAL[parser], "threshold", "top"]
    elif parser == "enrich":
        known = [*_OF_ENRICH, *["boxes"] * 4, "bbox", "image", "min_confidence", "render"]
    else:
        known = [name for name in _FIELDS if name not in (*_OF_COMPARISON, *_OF_ENRICH)]
    names: list[str] = draw(st.lists(st.sampled_from(known), max_size=draw(st.sampled_from([1, 1, 3])), unique=True))
    return {**_USUAL[parser], **{name: draw(_FIELDS[name]) for name in names}}


# ── bodies ──

_JSON_TYPES: Final = st.sampled_from(
    ["application/json", "application/json; charset=utf-16", "text/json", "", "application/x-www-form-urlencoded"]
)
_ODD_TYPES: Final = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30),
    st.sampled_from(
        [
            "multipart/form-data",
            "multipart/form-data; boundary*=x''X",
            "multipart/form-data; boundary*=utf-7'en'%2BX",
            'multipart/form-data; boundary="',
            "multipart/form-data; boundary=" + "a" * 300,
            "image/png; boundary=X",
            "image/avif",
            "application/octet-stream",
        ]
    ),
)


def _as_json(fields: Any, ascii_only: bool, encoding: str) -> bytes:
    return json.dumps(fields, ensure_ascii=ascii_only).encode(encoding, "surrogatepass")


def _as_form(fields: Mapping[str, Any], head: str, boundary: str) -> bytes:
    body = b""
    for name, value in fields.items():
        data = value if isinstance(value, str) else json.dumps(value)
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{head}\r\n\r\n'.encode(
            "utf-8", "replace"
        )
        body += data.encode("utf-8", "replace") + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


def _as_urlencoded(fields: Mapping[str, Any]) -> bytes:
    pairs = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in fields.items())
    return "&".join(f"{name}={quote_plus(value, errors='replace')}" for name, value in pairs).encode()


_HEADS: Final = st.sampled_from(
    [
        "",
        '; filename="a.png"',
        '; filename="a"\r\nContent-Type: image/png',
        "; filename*=utf-9''a",
        "\r\nContent-Transfer-Encoding: base64",
        "\r\nContent-Transfer-Encoding: quoted-printable",
        '; filename="a"\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: x-uuencode',
        "; name*0=a; name*1*=utf-16''b",
    ]
)
_ENCODINGS: Final = st.sampled_from(["utf-8", "utf-8", "utf-16", "utf-8-sig"])


def _whole(parser: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """Content types with bodies: five in eight are right."""
    fields = _some_fields(parser)
    as_form = st.builds(_as_form, fields, _HEADS, st.just("X"))
    as_ascii = st.builds(_as_json, fields, st.just(True), st.just("utf-8"))
    return st.one_of(
        st.tuples(st.just("application/json"), as_ascii),
        st.tuples(st.just("application/json"), as_ascii),
        st.tuples(_JSON_TYPES, st.builds(_as_json, fields, st.booleans(), _ENCODINGS)),
        st.tuples(st.just("application/json"), st.builds(_as_json, _ANY, st.just(True), st.just("utf-8"))),
        st.tuples(st.just("multipart/form-data; boundary=X"), as_form),
        st.tuples(st.just("application/x-www-form-urlencoded"), st.builds(_as_urlencoded, fields)),
        st.tuples(_ODD_TYPES, as_form | st.binary(max_size=200)),
        st.tuples(st.sampled_from(["image/png", "image/*", "application/octet-stream"]), st.binary(max_size=200)),
    )


_WHOLE: Final = {parser: _whole(parser) for parser in _USUAL}


def seeds() -> list[bytes]:
    """Right requests of every kind, as tests/fuzz/corpus has them: the content type, a line break, the body."""
    form = b"multipart/form-data; boundary=X\n"
    in_parts = "; name*0=a; name*1*=utf-16''b"
    coded = '; filename="a"\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64'
    return [
        seed
        for fields in _USUAL.values()
        for seed in (
            b"application/json\n" + json.dumps(fields).encode(),
            b"application/x-www-form-urlencoded\n" + _as_urlencoded(fields),
            *(form + _as_form(fields, head, "X") for head in ("", in_parts, coded)),
        )
    ]


def _damaged(body: bytes, place: float, byte: int, how: str) -> bytes:
    at = int(place * len(body))
    match how:
        case "cut":
            return body[:at]
        case "changed":
            return body[:at] + bytes([byte]) + body[at + 1 :]
        case _:
            return body[:at] + body[at // 2 :]


def _coded(body: bytes, encoding: str, damage: bool) -> bytes:
    if encoding.endswith("gzip"):
        body = gzip.compress(body, 1)
    elif encoding == "deflate":
        body = zlib.compress(body, 1)
    return body[: len(body) // 2] + b"\xff" + body[len(body) // 2 + 1 :] if damage else body


_SHORT: Final = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["0.5", "1,2,90,90", "overlay"])
_QUERIES: Final = st.dictionaries(
    st.sampled_from([*_FIELDS, "bbox[]", "image_base64", "unknown"]),
    _SHORT | st.lists(_SHORT, min_size=1, max_size=5),
    max_size=2,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Received]:
    """A parser's name (see tests/fuzz/parsers.py) and a request: most mean something, some are damaged."""
    parser = draw(st.sampled_from(sorted(_WHOLE)))
    content_type, body = draw(_WHOLE[parser])
    how = draw(st.sampled_from([*["whole"] * 8, "cut", "changed", "repeated"]))
    if how != "whole":
        body = _damaged(body, draw(st.floats(0, 1)), draw(st.integers(0, 255)), how)
    encoding = draw(st.sampled_from([*[""] * 8, "gzip", "x-gzip", "deflate", "br", "gzip, gzip"]))
    body = _coded(body, encoding, damage=encoding != "" and draw(st.booleans()))
    query = draw(_QUERIES) if draw(st.integers(0, 3)) == 0 else {}
    accept = draw(st.sampled_from(["", "image/png", "*/*", "image/jpeg;q=0.5, image/png;q=nan", ";;,"]))
    return parser, Received(content_type, body, query, encoding, accept)
