"""Loads a cat and dog ResNet with transformers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from importing.errors import WeightsRefused
from importing.loaders.network import ImageInput, Network, Normalise, largest
from importing.loaders.pretrained import MEAN, PROCESSOR, STD, load_pretrained, load_processor, normalise_of
from importing.species import Species, species

logger = logging.getLogger(__name__)

PROCESSORS: Final[Mapping[str, Any]] = MappingProxyType(
    {"ConvNextImageProcessor": ConvNextImageProcessor, "ViTImageProcessor": ViTImageProcessor}
)
# transformers/models/convnext/image_processing_convnext.py stretches images from this edge on, and crops smaller ones.
STRETCHED_FROM: Final = 384
SIDES: Final = range(32, 1025)  # pixels, from the network's stride to beyond any public ResNet's training size
FILTERS: Final = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)  # those of vision.image.resize
LIMITS = {"logit": 1e-2, "probability": 1e-3, "feature": 1e-2}


def load(folder: Path) -> Network:
    """Load a cat and dog ResNet with transformers.

    The graph's outputs are float32: `logits` (B, 2) in the order of `id2label`, and `features` (B, C), the pooled
    features before the classifier. The labels are the species that `id2label` names. The folder's image processor sets
    the input size.

    Raises WeightsRefused if the folder holds another model, its labels are not one cat and one dog, or its processor
    has no fixed size.
    """
    model = load_pretrained(ResNetForImageClassification, "resnet", folder)
    labels = _labels(dict(model.config.id2label))
    processor = load_processor(PROCESSORS, "ConvNextImageProcessor", folder)
    sides, resize = _input(processor)

    def original(image: Tensor) -> tuple[Tensor, ...]:
        pixels = processor(list(image.permute(0, 3, 1, 2)), do_resize=False, return_tensors="pt")["pixel_values"]
        return model(pixels).logits, model.resnet(pixels).pooler_output.flatten(1)

    return Network(
        graph=_Classifier(model, normalise_of(processor)),
        original=original,
        image=ImageInput(sides, resize),
        outputs=("logits", "features"),
        labels=labels,
        probes=(sides,),
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


def _input(processor: Any) -> tuple[tuple[int, int], dict[str, Any]]:
    """Return height and width of the network's input, and the processor's settings for a centre crop or a stretch."""
    if not processor.do_resize:
        raise WeightsRefused(f"{PROCESSOR} has do_resize false, but images of one size are needed: true")
    resample = int(processor.resample)
    if resample not in FILTERS:
        allowed = " or ".join(f"{filter.value} ({filter.name.lower()})" for filter in FILTERS)
        raise WeightsRefused(f"{PROCESSOR} has the resample {resample}; {allowed} is needed")
    size = processor.size
    cropping = isinstance(processor, ConvNextImageProcessor)
    named = ("shortest_edge", "shortest_edge") if cropping else ("height", "width")
    sides: Any = tuple(getattr(size, name, None) for name in named)
    if not all(isinstance(side, int) and side in SIDES for side in sides):
        raise WeightsRefused(
            f"{PROCESSOR} has the size {dict(size or {})}; {' and '.join(dict.fromkeys(named))} from {SIDES[0]} to "
            f"{SIDES[-1]} pixels is needed"
        )
    if not cropping or sides[0] >= STRETCHED_FROM:
        return sides, {"resample": resample}
    share = processor.crop_pct
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise WeightsRefused(f"{PROCESSOR} has the crop_pct {share!r}; a share above 0 up to 1 is needed")
    return sides, {"shortest_edge": sides[0], "crop_pct": share, "resample": resample}


def _labels(names: Mapping[int, object]) -> tuple[Species, ...]:
    """Return the species of each class. Raises WeightsRefused unless they are one cat and one dog."""
    found = {index: species(str(name)) for index, name in names.items()}
    if sorted(found) != [0, 1] or {*found.values()} != {"cat", "dog"}:
        raise WeightsRefused(
            f"config.json has the labels {dict(names)}; one for cats and one for dogs are needed, such as "
            "{0: 'cat', 1: 'dog'} in id2label"
        )
    labels = []
    for index, kind in sorted(found.items()):
        assert kind is not None
        labels.append(kind)
        if str(names[index]).casefold() not in {kind, f"{kind}s"}:
            logger.warning("The label %r is served as %r.", names[index], kind)
    return tuple(labels)


def _compare(expected: tuple[Tensor, ...], actual: tuple[Tensor, ...]) -> dict[str, float]:
    return {
        "logit": largest(expected[0], actual[0]),
        "probability": largest(torch.softmax(expected[0], 1), torch.softmax(actual[0], 1)),
        "feature": largest(expected[1], actual[1]),
    }


def write_standin(folder: Path) -> None:
    """Write an untrained ResNet-18 with the public weights' labels and processor."""
    config = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        id2label={0: "cats", 1: "dogs"},
        label2id={"cats": 0, "dogs": 1},
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(
        size={"shortest_edge": 224},
        crop_pct=0.875,
        resample=int(Image.Resampling.BICUBIC),
        image_mean=MEAN,
        image_std=STD,
    ).save_pretrained(folder)
