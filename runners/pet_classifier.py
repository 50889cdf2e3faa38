"""ResNet-18 cat/dog classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from PIL import Image

from engines.batches import Outputs
from models.store import ModelCard
from runners.contract import Item, PetResult
from runners.runner import Network, Runner, batchable
from settings import ModelSettings
from vision.image import RGB, resize, resize_shortest_edge


def prepare(image: RGB, model_input: Mapping[str, Any]) -> RGB:
    """An image of any size as the network's input (height, width, 3), resized as the checkpoint's own processor does.

    model_input: the model card's `input`. With `shortest_edge` and `crop_pct` of transformers' ConvNextImageProcessor
    the shorter side becomes shortest_edge / crop_pct, then the centre is cut out; else the whole image is stretched.
    """
    resample = Image.Resampling(model_input["resample"])
    if "shortest_edge" not in model_input:
        height, width = _size(model_input)
        return resize(image, width, height, resample)
    side = model_input["shortest_edge"]
    return resize_shortest_edge(image, int(side / model_input["crop_pct"]), side, resample)


def _size(model_input: Mapping[str, Any]) -> tuple[int, int]:
    return model_input["height"], model_input["width"]


def interpret(outputs: Outputs, item: Item, card: ModelCard, settings: ModelSettings) -> PetResult:  # noqa: ARG001
    """outputs: `logits` (classes,) float32, then `features`; the labels are the checkpoint's id2label, in its order."""
    logits = outputs[0].astype(np.float64)
    exponentials = np.exp(logits - logits.max())
    probabilities = exponentials / exponentials.sum()
    return {"probabilities": dict(zip(card.labels, probabilities.tolist(), strict=True))}


NETWORK: Final = Network("pet_classifier", interpret, lambda _, model_input: (_size(model_input),))


class PetClassifier(Runner):
    @batchable("pet_classifier")
    def pet_classifier(self, items: list[Any]) -> list[Any]:
        """items: runners.contract.Item, image of the card's size → PetResult or Failure each."""
        return self.infer("pet_classifier", items)
