"""Each model's weights, loaded with its official library: one file per architecture."""

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
# File of this room, and what its functions are told beside the path. It is imported when it is needed.
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
    """Load a model's weights with its official library and check them.

    Raises WeightsRefused, naming the file and the reason, for anything that is not wholly that model.
    """
    module, arguments = _loader(name)
    network: Network = module.load(weights, *arguments)
    return network


def write_standin(name: ModelName, folder: Path) -> None:
    """Write weights of a model's exact architecture with seeded random parameters, under the names of the real files.

    They make loading, conversion and serving testable without the real ones. Their answers mean nothing.
    """
    import torch

    torch.manual_seed(STANDIN_SEED)
    module, arguments = _loader(name)
    module.write_standin(CATALOGUE[name].loaded_path(folder), *arguments)


def _loader(name: ModelName) -> tuple[Any, tuple[str, ...]]:
    file, arguments = _LOADERS[name]
    return import_module(f"importing.loaders.{file}"), arguments
