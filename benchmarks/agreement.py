"""Do the answers of two servers to the same request agree, and how much do they differ?"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

Answer = Mapping[str, Any]


class Disagreement(RuntimeError):
    """The two answers differ in meaning. The text says in what."""


def difference(route: str, one: Answer, other: Answer) -> str:
    """Describe the difference in words and figures.

    Raises Disagreement if persons, threats, labels, embeddings or depth maps differ beyond the bounds.
    """
    match route:
        case "/pose-analyze":
            _same("posture", one["posture"], other["posture"])
            return _boxes("persons", one["persons"], other["persons"])
        case "/threat-detect":
            threats = [answer["threats_detected"] for answer in (one, other)]
            _same("the threats' names", *(sorted(threat["class"] for threat in found) for found in threats))
            return _boxes("threats", *threats)
        case "/person-reid":
            cosine = float(np.dot(one["embedding"], other["embedding"]))
            if cosine < 0.99:
                raise Disagreement(f"the embeddings' cosine is {cosine:.3f}")
            return f"cosine {cosine:.5f}"
        case "/pet-classify":
            for label in ("pet_type", "is_household_pet"):
                _same(label, one[label], other[label])
            return f"{one['pet_type']}, probability ±{abs(one['confidence'] - other['confidence']):.4f}"
        case _:
            maps = [_depth(answer) for answer in (one, other)]
            _same("the map's size", maps[0].shape, maps[1].shape)
            correlation = float(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])
            if correlation < 0.98:
                raise Disagreement(f"the maps' correlation is {correlation:.3f}")
            return f"correlation {correlation:.4f}"


def _same(what: str, one: Any, other: Any) -> None:
    if one != other:
        raise Disagreement(f"{what}: {one} and {other}")


def _boxes(what: str, one: Sequence[Answer], other: Sequence[Answer]) -> str:
    _same(f"the number of {what}", len(one), len(other))
    overlaps = [max(_iou(a["bbox"], b["bbox"]) for b in other) for a in one]
    if any(overlap < 0.85 for overlap in overlaps):
        raise Disagreement(f"boxes of {what} overlap by {min(overlaps):.2f} only")
    return f"{len(one)} {what}" + (f", boxes' IoU ≥ {min(overlaps):.3f}" if overlaps else "")


def _iou(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    width = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
    height = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
    common = max(0.0, width) * max(0.0, height)
    return common / (a["width"] * a["height"] + b["width"] * b["height"] - common)


def _depth(answer: Answer) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["depth_map_base64"]))), dtype=np.float64)
