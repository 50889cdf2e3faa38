"""Does an answer say what an earlier one said? For JSON, pictures, .npy and any other bytes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Not the same in two answers: times, and texts with numbers in them.
_VARYING: Final = ("_ms", "Ms", "timings", "reason", "timestampUTC")
_FILE: Final = "_base64"
_TOLERANCE: Final = 0.02  # a batch of another size changes the last digits
_NPY: Final = b"\x93NUMPY"
_PICTURES: Final = (b"\xff\xd8\xff", b"\x89PNG")


def unlike(reference: bytes, answer: bytes) -> str | None:
    """Say where an answer differs from the reference; None if it does not.

    Numbers may differ by 2 % of the reference or of 1, and pictures by 2 % of their range in the mean.
    """
    if reference == answer:
        return None
    try:
        if reference.startswith((_NPY, *_PICTURES)):
            return _unlike_arrays(reference, answer)
        if reference.startswith((b"{", b"[")):
            return next(_differences("", json.loads(reference), json.loads(answer)), None)
    except (ValueError, OSError) as error:  # half of a file
        return f"{error}; {reference[:60]!r} expected"
    return f"{answer[:60]!r}, {reference[:60]!r} expected"


def _unlike_arrays(reference: bytes, answer: bytes) -> str | None:
    if reference[:3] != answer[:3]:
        return f"a file that begins {answer[:8]!r}, not {reference[:8]!r}"
    one, other = _array(reference), _array(answer)
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"an array of {other.shape} {other.dtype}, {one.shape} {one.dtype} expected"
    largest = np.iinfo(one.dtype).max if one.dtype.kind == "u" else 1
    apart = float(np.abs(one.astype(np.float64) - other).mean()) / largest
    return None if apart <= _TOLERANCE else f"values {apart:.1%} of their range apart"  # NaN is not within


def _array(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    return np.load(file) if data.startswith(_NPY) else np.asarray(Image.open(file))


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
    elif path.endswith(_FILE) and isinstance(one, str) and isinstance(other, str):
        if found := unlike(base64.b64decode(one), base64.b64decode(other)):
            yield f"{path} is {found}"
    elif one != other:
        yield f"{path} is {str(other)[:60]}, {str(one)[:60]} was expected"
