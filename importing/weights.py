"""Weight files on this machine: which belong to a model, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from importing.errors import WeightsRefused
from importing.impostors import impostor
from importing.loaders import STANDIN_SEED
from models.catalogue import CATALOGUE, FOLDER_WEIGHTS, ModelName, ModelSpec

#: Version of the recipe in importing/int8. Raise it whenever the same pictures would give another int8 graph.
CALIBRATION = 2

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


def gather(spec: ModelSpec, path: Path, origin: str) -> Weights:
    """The weights at `path`: a file, or for the transformers models a folder.

    Raises WeightsRefused where the path is of the other kind, or a file is missing, empty or something else
    (importing/impostors.py).
    """
    if spec.file and not path.is_file():
        raise WeightsRefused(f"{path} is a folder, but the weights of {spec.title} are one file: name that file")
    if not spec.file and not path.is_dir():
        raise WeightsRefused(
            f"{path} is a file, but {spec.title} is loaded from a folder of {', '.join(spec.file_names)}:"
            " name the folder"
        )
    files = (path,) if spec.file else tuple(path / name for name in spec.file_names)
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
    if missing.name != FOLDER_WEIGHTS or other is None:
        return ""
    return (
        f", but {other}: load it with transformers once and save it with save_pretrained(folder), which writes "
        f"{FOLDER_WEIGHTS}"
    )


def fingerprint(weights: Weights) -> Fingerprint:
    """Read the files and identify them; about 0.1 s for 100 MB."""
    return identify(weights.spec.name, {file.name: sha256_of(file) for file in weights.files})


def standin_version(name: ModelName) -> str:
    """The version under which a stand-in is stored: it has a seed instead of a checksum."""
    return f"seed{STANDIN_SEED}-{CATALOGUE[name].conversion}"


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
    version = [parameters[:12], str(CATALOGUE[name].conversion)]
    if others:
        listing = "\n".join(f"{file} {checksum}" for file, checksum in sorted(checksums.items()))
        version.insert(1, hashlib.sha256(listing.encode()).hexdigest()[:6])
    return Fingerprint(sha256=parameters, version="-".join(version))


def sha256_of(file: Path) -> str:
    """The sha256 of a file as 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
