"""Loads each model's weights with its official library, one file per architecture."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from models.catalogue import CATALOGUE, ModelName

if TYPE_CHECKING:
    from importing.loaders.network import Network

STANDIN_SEED: Final = 0
# Model → its module in this package, and further arguments of the module's functions. Imported on demand.
_LOADERS: Final[Mapping[ModelName, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "pose_estimator": ("yolo", ("pose",)),
        "threat_detector": ("yolo", ("detect",)),
        "person_reid": ("osnet", ()),
        "pet_classifier": ("resnet", ()),
        "depth_estimator": ("depth", ()),
    }
)


def load(name: ModelName, weights: Path) -> Network:
    """Load a model's weights with its official library, and check them.

    weights: a file, or a folder for the transformers models. Raises WeightsRefused, with the file and the reason, if
    they are not exactly this model's.
    """
    module, arguments = _loader(name)
    network: Network = module.load(weights, *arguments)
    return network


def write_standin(name: ModelName, folder: Path) -> None:
    """Write weights with a model's exact architecture and seeded random parameters, under the real files' names.

    They test loading, conversion and serving without the real weights. Their answers mean nothing.
    """
    import torch

    torch.manual_seed(STANDIN_SEED)
    module, arguments = _loader(name)
    module.write_standin(CATALOGUE[name].loaded_path(folder), *arguments)


def _loader(name: ModelName) -> tuple[Any, tuple[str, ...]]:
    file, arguments = _LOADERS[name]
    return import_module(f"importing.loaders.{file}"), arguments
