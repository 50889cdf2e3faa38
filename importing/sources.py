"""Finds a model's weights: at documented paths, in the model zoo, in the store, or by a public download."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from importing.download import Downloader
from importing.errors import ImportFailure, WeightsMissing
from importing.weights import Weights, gather
from models.catalogue import ModelSpec
from models.store import StoredModel, home

logger = logging.getLogger(__name__)

MODELS_VARIABLE = "AI_MODELS_PATH"
_DEFAULT_MODELS_PATH = "/export/ai_models"  # of the original deployment


def given(spec: ModelSpec, source: str, downloader: Downloader, scratch: Path) -> Weights:
    """Return the weights that the command line names: a path, or a URL that is downloaded into `scratch`.

    A transformers model's URL is that of its folder; its files are fetched below it. Raises WeightsMissing if the
    weights don't exist, WeightsRefused if they are not of the right kind.
    """
    if not source.startswith(("http://", "https://")):
        path = Path(source).expanduser()
        if not path.exists():
            raise WeightsMissing(f"--source {source} does not exist")
        return gather(spec, path, str(path.absolute()))
    for name in spec.file_names:
        logger.info("Downloading %s of %s from %s.", name, spec.title, source)
        downloader.fetch(source if spec.file else f"{source.rstrip('/')}/{name}", scratch / name)
    return gather(spec, spec.loaded_path(scratch), source)


def locate(spec: ModelSpec, stored: StoredModel | None, downloader: Downloader) -> Weights:
    """Return a model's weights from the first place that has them.

    1. the documented variable (such as `POSE_MODEL_PATH`), or its default path
    2. the model zoo below `AI_MODELS_PATH`
    3. the store's copy from an earlier import
    4. the public download

    An empty folder counts as missing: Docker creates one if there is nothing to mount.

    Raises WeightsMissing with every place and the remedy if none has the weights. Raises ImportFailure if the variable
    is set, but to a path that does not exist or is empty.
    """
    path = on_disk(spec)
    if path is not None:
        return gather(spec, path, str(path.absolute()))
    looked = [f"{path} ({label})" for label, path in (_variable(spec), _zoo(spec))]
    if stored is not None:
        return gather(spec, stored.checkpoint, stored.card.source)
    try:
        return _download(spec, downloader)
    except WeightsMissing as error:
        looked.append(str(error))
    places = "".join(f"\n  - {place}" for place in looked)
    raise WeightsMissing(
        f"no weights of {spec.title} were found. Looked at:{places}\n  Get them from {spec.homepage} and run "
        f"`python -m models.import_models {spec.name} --source <path or URL>`"
    )


def on_disk(spec: ModelSpec) -> Path | None:
    """Return the first documented place that has something, unread; None if there is none.

    Raises ImportFailure as `locate` does.
    """
    return next((path for _, path in (_variable(spec), _zoo(spec)) if _holds_something(path)), None)


def _variable(spec: ModelSpec) -> tuple[str, Path]:
    """Return a label and the path in the model's own variable. Raises ImportFailure if it is absent or empty."""
    value = os.environ.get(spec.path_variable)
    if not value:
        return f"default of {spec.path_variable}", Path(spec.default_path)
    if not _holds_something(Path(value)):
        what = "is an empty folder" if Path(value).exists() else "does not exist"
        raise ImportFailure(f"{spec.path_variable}={value} {what}: correct it, or unset it to look elsewhere")
    return spec.path_variable, Path(value)


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _zoo(spec: ModelSpec) -> tuple[str, Path]:
    value = os.environ.get(MODELS_VARIABLE)
    label = MODELS_VARIABLE if value else f"default of {MODELS_VARIABLE}"
    return label, Path(value or _DEFAULT_MODELS_PATH) / "model-zoo" / spec.weights / spec.file


def _download(spec: ModelSpec, downloader: Downloader) -> Weights:
    """Download the public weights into a cache below BENTOML_HOME, which is writable wherever the store is."""
    if not spec.sources:
        raise WeightsMissing("a public download (none is known whose checksum could be pinned)")
    cache = home() / "downloads" / spec.weights
    for source in spec.sources:
        logger.info("Taking %s of %s from %s.", source.path, spec.title, source.url)
        downloader.fetch_pinned(source.url, cache / source.path, sha256=source.sha256, size=source.size)
    return gather(spec, cache / spec.file, spec.sources[0].url)
