"""Opens torch checkpoints without running their code, for the loaders of OSNet and YOLO."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final, cast

import numpy as np
import torch

from importing.errors import WeightsRefused

#: A class or function that a checkpoint may name, or one with the name that it had when the file was written.
Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]

# Finds the class or function that torch's restricted unpickler refused, in its message.
_GLOBAL: Final = re.compile(r"\bGLOBAL ([\w.]{1,100})", re.ASCII)
_SCALAR: Final = cast("Callable[..., Any]", np.float64(0).__reduce__()[0])
#: numpy scalars, in which training programs store their results: torchreid its rank1, ultralytics its best fitness.
#: numpy 1 and 2 have the function in modules of different names.
NUMBERS: Final[tuple[Allowed, ...]] = (
    np.dtype,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"},
)
# The packages of the repositories ultralytics/yolov5 and WongKinYiu/yolov7.
_YOLOV5: Final = ("models.yolo.", "models.common.", "models.experimental.")
_BEGINNING: Final = 24  # bytes of a foreign file quoted in the error


@contextmanager
def opening(path: Path, what: str, remedy: str, allowed: Sequence[Allowed] = ()) -> Iterator[None]:
    """Let torch's restricted unpickler accept numbers and `allowed`, and turn its errors into WeightsRefused.

    The error text is our own, because torch's text advises opening such a file without restrictions. what: the expected
    kind of file. remedy: advice if the file names any other class or function; none of these is called.
    """
    try:
        with torch.serialization.safe_globals([*NUMBERS, *allowed]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the errors below name the problem
            yield
    except Exception as error:
        raise WeightsRefused(f"{path.name} is not {what}: {_reason(path, error, remedy)}") from error


def _reason(path: Path, error: BaseException, remedy: str) -> str:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if named := next((found[1].rstrip(".") for cause in causes if (found := _GLOBAL.search(str(cause)))), None):
        return f"{_foreign(named)}. Nothing of it was run. {remedy}"
    damage = _damage(path)
    if damage is None and any(isinstance(cause, UnpicklingError) for cause in causes):
        return f"it holds a value that it may not hold. Nothing of it was run. {remedy}"
    return damage or "it is damaged: get it again"


def _foreign(named: str) -> str:
    if named.startswith(_YOLOV5):
        return f"it names {named}, as the files of the repositories yolov5 and yolov7 do"
    return f"it names {named}, which is none of the classes and functions that it may name"


def _damage(path: Path) -> str | None:
    """Return why torch.save can't have written a file, or None if it looks complete."""
    with path.open("rb") as stream:
        beginning = stream.read(_BEGINNING)
    if beginning.startswith(b"\x80"):
        return "it is a pickle, but cut short, damaged or not made by torch.save"
    if not beginning.startswith(b"PK"):
        return f"torch.save did not write it, as it begins with {beginning!r}"
    if not zipfile.is_zipfile(path):
        return "it is cut short, as the end of its archive is missing: get it again"
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile:
        return None
    if "constants.pkl" in names:
        return "it is a TorchScript archive (torch.jit.save); the file that torch.save wrote is needed"
    if "data.pkl" not in names:
        return "it is an archive of something else; the file that torch.save wrote is needed"
    return None
