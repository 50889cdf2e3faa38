"""Decides whether a request is answered by a picture or a file instead of JSON, and by which."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, get_args

from api.errors import invalid_field
from vision.canvas import ImageFormat
from vision.depth_map import Colormap, FileForm, Format

Render = Literal["overlay"]

RENDERS: Final[tuple[Render, ...]] = get_args(Render)
_JSON: Final = "application/json"
_PNG: Final = "image/png"
_FORMS: Final[Mapping[str, ImageFormat]] = MappingProxyType({"image/jpeg": "JPEG", _PNG: "PNG"})
_QUALITY: Final = re.compile(r"\s*q\s*=\s*(0(\.\d{0,3})?|1(\.0{0,3})?)\s*", re.IGNORECASE)  # RFC 9110, 12.4.2


def preferred(accept: str, offered: Sequence[str]) -> str:
    """Return the media type that an Accept header (RFC 9110, 12.5.1) prefers; of equal ones the first.

    Return the first, too, if the header is empty or accepts none.
    """
    return _best(_qualities(accept), offered)


def _qualities(accept: str) -> dict[str, float]:
    return dict(_range(part) for part in accept.split(",") if part.strip())


def _best(qualities: dict[str, float], offered: Sequence[str]) -> str:
    return max(offered, key=lambda kind: _quality_of(kind, qualities))


def _quality_of(kind: str, qualities: dict[str, float]) -> float:
    ranges = (kind, f"{kind.split('/')[0]}/*", "*/*")  # the most specific one counts
    return next((qualities[name] for name in ranges if name in qualities), 0.0)


def _range(part: str) -> tuple[str, float]:
    """Return a media range and its quality. Other parameters don't matter here."""
    name, *parameters = part.split(";")
    found = [match for parameter in parameters if (match := _QUALITY.fullmatch(parameter))]
    return name.strip().lower(), float(found[0][1]) if found else 1.0


def _unless_json(accept: str, others: Sequence[str]) -> str:
    """Return the preferred media type of JSON and others.

    JSON if the header lists text/html: browsers and HTTP libraries (Java's HttpURLConnection) send such headers
    unasked, with pictures in them.
    """
    qualities = _qualities(accept)
    return _JSON if qualities.get("text/html") else _best(qualities, (_JSON, *others))


def overlay(render: Render | None, accept: str) -> ImageFormat | None:
    """Return the format of an annotated picture; None if the answer is JSON."""
    return _FORMS.get(_unless_json(accept, (*_FORMS,)) if render is None else preferred(accept, (*_FORMS,)))


def depth_file(form: Format | None, colormap: Colormap | None, accept: str) -> FileForm | None:
    """Return the form of a depth map as a file; None if the answer is JSON. Raises ApiError invalid_request."""
    if colormap is not None and form not in (None, "png8"):
        raise invalid_field(
            "colormap", f"goes with format png8 or without format, which make a PNG in colours; {form} was received"
        )
    if form is None and colormap is None:
        return FileForm("png8") if _unless_json(accept, (_PNG,)) == _PNG else None
    return FileForm(form or "png8", colormap)
