from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ConvNextImageProcessor, ResNetForImageClassification

from models.errors import WeightsRefused
from models.loaders.network import ImageInput, Network, Normalise, largest, refusing
from models.loaders.pretrained import load_pretrained

LIMITS = {"logit": 1e-2, "probability": 1e-3, "feature": 1e-2}


def load(folder: Path) -> Network:
    """Load a cat and dog ResNet with transformers.

    The graph's outputs are `logits` (B, 2) in the order of `id2label`, and `features` (B, C): the pooled features
    before the classifier, from which something that is neither a cat nor a dog can be told.

    Raises WeightsRefused where the folder is no such model, or its labels are not one kind of cat and one of dog.
    """
    model = load_pretrained(ResNetForImageClassification, "resnet", folder)
    labels = _labels(dict(model.config.id2label))
    with refusing(folder, "a folder with the settings of a ConvNextImageProcessor"):
        processor: Any = ConvNextImageProcessor.from_pretrained(folder, local_files_only=True)
        side = int(processor.size["shortest_edge"])
        resize = {"shortest_edge": side, "crop_pct": processor.crop_pct, "resample": int(processor.resample)}

    def original(image: Tensor) -> tuple[Tensor, ...]:
        pixels = processor(list(image.permute(0, 3, 1, 2)), do_resize=False, return_tensors="pt")["pixel_values"]
        return model(pixels).logits, model.resnet(pixels).pooler_output.flatten(1)

    return Network(
        graph=_Classifier(model, Normalise(tuple(processor.image_mean), tuple(processor.image_std))),
        original=original,
        image=ImageInput((side, side), resize),
        outputs=("logits", "features"),
        labels=labels,
        probes=((side, side),),
        compare=_compare,
        limits=LIMITS,
    )


class _Classifier(nn.Module):
    def __init__(self, model: Any, normalise: Normalise) -> None:
        super().__init__()
        self.normalise, self.resnet, self.classifier = normalise, model.resnet, model.classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.resnet(self.normalise(image)).pooler_output
        return self.classifier(features), features.flatten(1)


def _labels(names: dict[int, str]) -> tuple[str, ...]:
    cats = [name for name in names.values() if "cat" in name.lower()]
    dogs = [name for name in names.values() if "dog" in name.lower()]
    if len(names) != 2 or len(cats) != 1 or len(dogs) != 1 or cats == dogs:
        raise WeightsRefused(f"config.json has the labels {names}; one for cats and one for dogs are needed")
    return tuple(names[index] for index in sorted(names))


def _compare(expected: tuple[Tensor, ...], actual: tuple[Tensor, ...]) -> dict[str, float]:
    return {
        "logit": largest(expected[0], actual[0]),
        "probability": largest(torch.softmax(expected[0], 1), torch.softmax(actual[0], 1)),
        "feature": largest(expected[1], actual[1]),
    }
