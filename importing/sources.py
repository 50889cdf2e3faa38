"""Where a model's weights are: documented paths, the model zoo, the store's own copy, or a public download."""

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
_DEFAULT_MODELS_PATH = "/export/ai_models"  # the seed's compose file


def given(spec: ModelSpec, source: str, downloader: Downloader, scratch: Path) -> Weights:
    """The weights that the command line names: a path, or a URL that is downloaded into `scratch`.

    For the transformers models a URL is that of the folder, below which the single files are fetched. Raises
    WeightsMissing or WeightsRefused where there is no such file or it is not of the right kind.
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
    """The weights of a model from the first place that has them.

    In order: the documented variable (`POSE_MODEL_PATH` …, by default the seed's path), the model zoo below
    `AI_MODELS_PATH`, the copy that the store keeps of what was imported before, the public download. Raises
    WeightsMissing, listing every place and the remedy, where none has them; and at once where the variable is set to a
    path that does not exist or to an empty folder. An empty folder at a default path is none: Docker makes one where
    there is nothing to mount.
    """
    looked: list[str] = []
    for label, path in (_variable(spec), _zoo(spec)):
        if _holds_something(path):
            return gather(spec, path, str(path.absolute()))
        looked.append(f"{path} ({label})")
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


def _variable(spec: ModelSpec) -> tuple[str, Path]:
    """Where the model's own variable points to. Raises ImportFailure where it is set to a path that does not exist."""
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
    """Fetch the public weights into a cache below BENTOML_HOME, which is writable wherever the store is."""
    if not spec.sources:
        raise WeightsMissing("a public download (none is known whose checksum could be pinned)")
    cache = home() / "downloads" / spec.weights
    for source in spec.sources:
        logger.info("Taking %s of %s from %s.", source.path, spec.title, source.url)
        downloader.fetch_pinned(source.url, cache / source.path, sha256=source.sha256, size=source.size)
    return gather(spec, cache / spec.file, spec.sources[0].url)
