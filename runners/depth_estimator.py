"""Depth Anything V2 Small: relative inverse depth of a whole scene."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, cast

from PIL import Image

from engines.batches import Outputs
from models.store import ModelCard
from runners.contract import DepthResult, Item
from runners.runner import Network, Runner, batchable
from settings import DepthSettings, ModelSettings
from vision.depth_map import normalise
from vision.image import RGB, resize

PATCH: Final = 14  # DINOv2's, the unit in which the network's input is measured
# Width : height of the five inputs. The official processor keeps any aspect ratio at a height of 518, so that a 16:9
# frame costs 1.8 times a square one and every camera brings shapes of its own; these five all have about the square's
# area, and cost. A picture between them is stretched to the nearest, the map is stretched back.
ASPECT_RATIOS: Final = (16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16)


def input_shape(width: int, height: int, size: int) -> tuple[int, int]:
    """Height and width of the network's input for an image of width × height pixels; multiples of 14.

    size: side of the square input (setting `input_size`). 518 gives 392×686 for 16:9 and 448×602 for 4:3.
    """
    ratio = min(ASPECT_RATIOS, key=lambda ratio: abs(math.log(width / height / ratio)))
    patches = size / PATCH
    rows, columns = round(patches / math.sqrt(ratio)), round(patches * math.sqrt(ratio))
    return max(1, rows) * PATCH, max(1, columns) * PATCH


def prepare(image: RGB, size: int) -> RGB:
    """An image of any size as the network's input: (h, w, 3), bicubic and antialiased like the official processor's."""
    height, width = input_shape(image.shape[1], image.shape[0], size)
    return resize(image, width, height, Image.Resampling.BICUBIC)


def interpret(outputs: Outputs, item: Item, card: ModelCard, settings: ModelSettings) -> DepthResult:  # noqa: ARG001
    """outputs: `depth` (h, w) float32, relative inverse depth of no fixed range."""
    return {"depth": normalise(outputs[0])}


def _warm_up_sizes(settings: ModelSettings, model_input: Mapping[str, Any]) -> list[tuple[int, int]]:  # noqa: ARG001
    size = cast(DepthSettings, settings).input_size
    shapes = [input_shape(round(ratio * 1000), 1000, size) for ratio in ASPECT_RATIOS]
    return sorted(shapes, key=math.prod, reverse=True)


NETWORK: Final = Network("depth_estimator", interpret, _warm_up_sizes)


class DepthEstimator(Runner):
    @batchable("depth_estimator")
    def depth_estimator(self, items: list[Any]) -> list[Any]:
        """items: runners.contract.Item, image (h, w, 3) by input_shape → DepthResult or Failure each."""
        return self.infer("depth_estimator", items)
