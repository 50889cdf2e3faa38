from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from models.catalogue import ModelName

if TYPE_CHECKING:
    from importing.loaders.network import Network


def load(name: ModelName, weights: Path) -> Network:
    """Load a model's weights with its official library and check them; each library is imported when it is needed.

    Raises WeightsRefused, naming the file and the reason, for anything that is not wholly that model.
    """
    match name:
        case "pose_estimator" | "threat_detector":
            from importing.loaders import yolo

            return yolo.load(weights, "pose" if name == "pose_estimator" else "detect")
        case "person_reid":
            from importing.loaders import osnet

            return osnet.load(weights)
        case "pet_classifier":
            from importing.loaders import resnet

            return resnet.load(weights)
        case "depth_estimator":
            from importing.loaders import depth

            return depth.load(weights)
