"""OSNet x0.25: an embedding in which pictures of one person lie close together."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from PIL import Image

from engines.batches import Outputs
from models.store import ModelCard
from runners.contract import Item, ReidResult
from runners.runner import Network, Runner, batchable
from settings import ModelSettings
from vision.image import RGB, resize

# torchreid/data/transforms.py, build_transforms(height=256, width=128): Resize, bilinear, aspect not kept.
HEIGHT: Final = 256
WIDTH: Final = 128


def prepare(image: RGB) -> RGB:
    """A person's crop of any size as the network's input (256, 128, 3)."""
    return resize(image, WIDTH, HEIGHT, Image.Resampling.BILINEAR)


def interpret(outputs: Outputs, item: Item, card: ModelCard, settings: ModelSettings) -> ReidResult:  # noqa: ARG001
    """outputs: `embedding` (512,) float32, not normalised."""
    embedding = outputs[0].astype(np.float64)
    length = float(np.linalg.norm(embedding))
    if not np.isfinite(length) or length == 0:
        raise ValueError(f"the embedding's length is {length}")
    return {"embedding": (embedding / length).astype(np.float32), "model_id": card.model_id}


NETWORK: Final = Network("person_reid", interpret, lambda *_: ((HEIGHT, WIDTH),))


class PersonReid(Runner):
    @batchable("person_reid")
    def person_reid(self, items: list[Any]) -> list[Any]:
        """items: runners.contract.Item, image (256, 128, 3) → ReidResult or Failure each."""
        return self.infer("person_reid", items)
