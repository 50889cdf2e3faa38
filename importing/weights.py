from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from importing.errors import WeightsRefused
from importing.impostors import impostor
from models.catalogue import ModelName, ModelSpec

#: Version of each model's recipe in importing/convert.py and importing/loaders. Raise it whenever the same weights
#: would give other graphs or another card, or when torch is updated (graph.pt2 is a torch format): it is then imported
#: anew.
CONVERSIONS: Final[Mapping[ModelName, int]] = MappingProxyType(
    {"pose_estimator": 2, "threat_detector": 2, "person_reid": 2, "pet_classifier": 3, "depth_estimator": 2}
)

#: Version of the recipe in importing/int8. Raise it whenever the same pictures would give another int8 graph.
CALIBRATION = 2

_FOLDER_WEIGHTS = "model.safetensors"
_FOLDER_FILES = (_FOLDER_WEIGHTS, "config.json", "preprocessor_config.json")
# Other forms in which such a folder may have its parameters; the first is a pickle.
_OTHER_PARAMETERS = ("pytorch_model.bin", "model.safetensors.index.json", "tf_model.h5", "flax_model.msgpack")


@dataclass(frozen=True)
class Weights:
    """The files that make up a model's weights, on this machine.

    `files` are absolute paths, the one with the parameters first; `origin` is where they came from, for the card and
    the report.
    """

    spec: ModelSpec
    files: tuple[Path, ...]
    origin: str


@dataclass(frozen=True)
class Fingerprint:
    """What identifies weights: `sha256` of the parameters' file and the version under which the store keeps them."""

    sha256: str
    version: str


def file_names(spec: ModelSpec) -> tuple[str, ...]:
    """The names of a model's weight files below the folder that holds them, the one with the parameters first."""
    return (Path(spec.file).name,) if spec.file else _FOLDER_FILES


def loaded_path(spec: ModelSpec, folder: Path) -> Path:
    """What the official library is given of a folder that holds a model's weight files: the file, or the folder."""
    return folder / Path(spec.file).name if spec.file else folder


def gather(spec: ModelSpec, path: Path, origin: str) -> Weights:
    """The weights at `path`: a file, or for the transformers models a folder.

    Raises WeightsRefused where the path is of the other kind, or a file is missing, empty or something else
    (importing/impostors.py).
    """
    if spec.file and not path.is_file():
        raise WeightsRefused(f"{path} is a folder, but the weights of {spec.title} are one file: name that file")
    if not spec.file and not path.is_dir():
        raise WeightsRefused(
            f"{path} is a file, but {spec.title} is loaded from a folder of {', '.join(_FOLDER_FILES)}: name the folder"
        )
    files = (path,) if spec.file else tuple(path / name for name in _FOLDER_FILES)
    for file in files:
        if not file.is_file():
            raise WeightsRefused(
                f"{path} holds no {file.name}, which {spec.title} is loaded from{_instead(path, file)}"
            )
        if (problem := impostor(file)) is not None:
            raise WeightsRefused(f"{file} {problem}")
    return Weights(spec, tuple(file.absolute() for file in files), origin)


def _instead(folder: Path, missing: Path) -> str:
    """What a folder has in place of its parameters, and the remedy; "" where it has nothing of the kind."""
    other = next((name for name in _OTHER_PARAMETERS if (folder / name).is_file()), None)
    if missing.name != _FOLDER_WEIGHTS or other is None:
        return ""
    return (
        f", but {other}: load it with transformers once and save it with save_pretrained(folder), which writes "
        f"{_FOLDER_WEIGHTS}"
    )


def fingerprint(weights: Weights) -> Fingerprint:
    """Read the files and identify them; about 0.1 s for 100 MB."""
    return identify(weights.spec.name, {file.name: sha256_of(file) for file in weights.files})


def standin_version(name: ModelName) -> str:
    """The version under which a stand-in of importing/standins.py is stored: it has a seed instead of a checksum."""
    return f"seed0-{CONVERSIONS[name]}"


def calibration_digest(pictures: Sequence[Path]) -> str:
    """What identifies a calibration, 8 hex digits: its recipe, and what is in the pictures, wherever they lie."""
    checksums = "\n".join(sorted(sha256_of(path) for path in pictures))
    return hashlib.sha256(f"{CALIBRATION}\n{checksums}".encode()).hexdigest()[:8]


def identify(name: ModelName, checksums: Mapping[str, str]) -> Fingerprint:
    """Identify a model's weights by the sha256 of each file, keyed by file name, the file with the parameters first.

    The version is `<parameters:12>[-<other files:6>]-<conversion>`: another `id2label` in a config.json is another
    version although the parameters are the same.
    """
    parameters, *others = checksums.values()
    version = [parameters[:12], str(CONVERSIONS[name])]
    if others:
        listing = "\n".join(f"{file} {checksum}" for file, checksum in sorted(checksums.items()))
        version.insert(1, hashlib.sha256(listing.encode()).hexdigest()[:6])
    return Fingerprint(sha256=parameters, version="-".join(version))


def sha256_of(file: Path) -> str:
    """The sha256 of a file as 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
