"""Collects a model's weight files on this machine, and identifies them by checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from importing.errors import WeightsRefused
from importing.impostors import impostor
from importing.loaders import STANDIN_SEED
from models.catalogue import CATALOGUE, FOLDER_WEIGHTS, ModelName, ModelSpec
from models.store import sha256_of

#: Version of the recipe in importing/int8. Raise it whenever the same pictures would give another int8 graph.
CALIBRATION = 2

# Other files that may hold a transformers folder's parameters. The first is a pickle.
_OTHER_PARAMETERS = ("pytorch_model.bin", "model.safetensors.index.json", "tf_model.h5", "flax_model.msgpack")


@dataclass(frozen=True)
class Weights:
    """A model's weight files on this machine.

    files: absolute paths, the one with the parameters first. origin: their source, for the card and the report.
    """

    spec: ModelSpec
    files: tuple[Path, ...]
    origin: str


@dataclass(frozen=True)
class Fingerprint:
    """The identity of weights. sha256: of the file with the parameters. version: in the store."""

    sha256: str
    version: str


def gather(spec: ModelSpec, path: Path, origin: str) -> Weights:
    """Return the weights at `path`: a file, or a folder for the transformers models.

    Raises WeightsRefused if the path is of the other kind, or a file is missing, empty or no weights file
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
    """Return the rest of an error text if a folder has its parameters in another format, otherwise ""."""
    other = next((name for name in _OTHER_PARAMETERS if (folder / name).is_file()), None)
    if missing.name != FOLDER_WEIGHTS or other is None:
        return ""
    return (
        f", but {other}: load it with transformers once and save it with save_pretrained(folder), which writes "
        f"{FOLDER_WEIGHTS}"
    )


def fingerprint(weights: Weights) -> Fingerprint:
    """Read the files and return their identity."""
    return identify(weights.spec.name, {file.name: sha256_of(file) for file in weights.files})


def standin_version(name: ModelName) -> str:
    """Return a stand-in's version in the store, which holds a seed in place of a checksum."""
    return f"seed{STANDIN_SEED}-{CATALOGUE[name].conversion}"


def calibration_digest(pictures: Sequence[Path]) -> str:
    """Return the digest of a calibration, 8 hex digits, from its recipe and the pictures' contents, not their paths."""
    checksums = "\n".join(sorted(sha256_of(path) for path in pictures))
    return hashlib.sha256(f"{CALIBRATION}\n{checksums}".encode()).hexdigest()[:8]


def identify(name: ModelName, checksums: Mapping[str, str]) -> Fingerprint:
    """Return the identity of weights. checksums: file name → sha256, the file with the parameters first.

    The version is `<parameters:12>[-<all files:6>]-<conversion>`. So another `id2label` in config.json gives another
    version, although the parameters are the same.
    """
    parameters, *others = checksums.values()
    version = [parameters[:12], str(CATALOGUE[name].conversion)]
    if others:
        listing = "\n".join(f"{file} {checksum}" for file, checksum in sorted(checksums.items()))
        version.insert(1, hashlib.sha256(listing.encode()).hexdigest()[:6])
    return Fingerprint(sha256=parameters, version="-".join(version))
