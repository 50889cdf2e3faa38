"""Loads Depth Anything V2 with transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

from importing.errors import WeightsRefused
from importing.loaders.network import ImageInput, Multiples, Network, Normalise, refusing
from importing.loaders.pretrained import MEAN, STD, load_pretrained, load_processor, normalise_of

PATCH = 14  # pixels, side of DINOv2's patches; heights and widths are multiples of it
CHANNELS = 384  # of the Small model; the larger ones have another licence than the catalogue's
LARGEST_SIDE = 1036  # pixels, twice the training size of 518
LIMITS = {"relative_depth": 1e-3, "correlation_distance": 1e-6}


def load(folder: Path) -> Network:
    """Load Depth Anything V2 with transformers.

    The graph takes any height and width that are multiples of 14. Its one output `depth` is (B, H, W) float32:
    relative inverse depth, larger is nearer.

    Raises WeightsRefused if the folder holds another model, a larger one, or one that estimates metres.
    """
    model = load_pretrained(DepthAnythingForDepthEstimation, "depth_anything", folder)
    kind, channels = model.config.depth_estimation_type, model.backbone.config.hidden_size
    if kind != "relative" or channels != CHANNELS:
        raise WeightsRefused(
            f"config.json is of a {kind!r} Depth Anything with {channels} channels; "
            f"the 'relative' one with {CHANNELS} (Small) is needed"
        )
    processor = load_processor({"DPTImageProcessor": DPTImageProcessor}, "DPTImageProcessor", folder)
    with refusing(folder, "a folder with the settings of a DPTImageProcessor"):
        resize = {"size": min(processor.size.height, processor.size.width), "resample": int(processor.resample)}

    def original(image: Tensor) -> tuple[Tensor, ...]:
        pixels = processor(list(image.permute(0, 3, 1, 2)), do_resize=False, return_tensors="pt")["pixel_values"]
        return (model(pixels).predicted_depth,)

    return Network(
        graph=_Estimator(model, normalise_of(processor)),
        original=original,
        image=ImageInput(Multiples(PATCH, minimum=PATCH, maximum=LARGEST_SIDE), resize),
        outputs=("depth",),
        labels=(),
        probes=((168, 126), (98, 182)),
        compare=lambda expected, actual: _compare(expected[0], actual[0]),
        limits=LIMITS,
    )


class _Estimator(nn.Module):
    """The network's parts, joined so that an export keeps the input's size dynamic.

    An export of transformers' own forward would freeze the Python ints in its embedding, attention mask and output
    size. Here the position embedding is always interpolated to the input's size, and the sizes stay symbolic. At the
    trained size bicubic interpolation is the identity.
    """

    def __init__(self, model: Any, normalise: Normalise) -> None:
        super().__init__()
        self.normalise, self.backbone, self.neck, self.head = normalise, model.backbone, model.neck, model.head

    def forward(self, image: Tensor) -> Tensor:
        rows, columns = image.shape[1] // PATCH, image.shape[2] // PATCH
        maps = self.neck(self._features(self.normalise(image), rows, columns), rows, columns)
        depth = self.head.conv1(maps[self.head.head_in_index])
        size = (rows * PATCH, columns * PATCH)
        depth = nn.functional.interpolate(depth, size, mode="bilinear", align_corners=True)
        depth = self.head.conv3(self.head.activation1(self.head.conv2(depth)))
        result: Tensor = self.head.activation2(depth) * self.head.max_depth
        return result.squeeze(1)

    def _features(self, pixels: Tensor, rows: int, columns: int) -> list[Tensor]:
        embeddings = self.backbone.embeddings
        patches = embeddings.patch_embeddings(pixels)
        tokens = torch.cat((embeddings.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        tokens = tokens + self._positions(rows, columns)
        stages = [tokens]
        for layer in self.backbone.encoder.layer:
            tokens = layer(tokens)
            stages.append(tokens)
        return [self.backbone.layernorm(stages[index]) for index in self.backbone.out_indices]

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embedding (1, 1 + rows * columns, C) for a grid of patches, as Dinov2Embeddings does."""
        trained: Tensor = self.backbone.embeddings.position_embeddings
        side = math.isqrt(trained.shape[1] - 1)
        grid = trained[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        return torch.cat((trained[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)


def _compare(expected: Tensor, actual: Tensor) -> dict[str, float]:
    """Return the largest difference as a share of the map's range, and 1 minus the smallest correlation of a map."""
    pairs = zip(expected.flatten(1).double(), actual.flatten(1).double(), strict=True)
    correlation = min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)
    share = (expected - actual).abs().max() / (expected.max() - expected.min())  # NaN for a constant map
    return {"relative_depth": float(share), "correlation_distance": 1 - correlation}


def write_standin(folder: Path) -> None:
    """Write an untrained Depth Anything V2 Small with the public weights' processor."""
    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        apply_layernorm=True,
        reshape_hidden_states=False,
        out_indices=[3, 6, 9, 12],
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=384,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        head_in_index=-1,
        head_hidden_size=32,
        depth_estimation_type="relative",
    )
    model = DepthAnythingForDepthEstimation(config)
    # An untrained head gives an almost constant map. Larger parameters spread it, so that comparisons are meaningful.
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(8.0)
    model.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 518, "width": 518},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=int(Image.Resampling.BICUBIC),
        image_mean=MEAN,
        image_std=STD,
    ).save_pretrained(folder)
