from __future__ import annotations

from pathlib import Path

from models.card import ModelCard
from models.store import GRAPH, PROGRAM, WEIGHTS


def card(*, sha256: str = "a" * 64, untrained: bool = False) -> ModelCard:
    return ModelCard(
        name="pet_classifier",
        weights="pet-classifier",
        sha256=sha256,
        source="a test",
        licence="MIT",
        labels=("cats", "dogs"),
        input={
            "name": "image",
            "dtype": "uint8",
            "layout": "NHWC",
            "channels": "RGB",
            "height": None,
            "width": None,
            "multiple_of": 32,
        },
        outputs=("logits", "features"),
        tolerance={"logit": 1.5e-6},
        conversion=1,
        untrained=untrained,
    )


def files(folder: Path, content: str = "graph") -> Path:
    """A folder as the conversion leaves it, with text in place of graphs."""
    (folder / WEIGHTS).mkdir(parents=True)
    for name in (GRAPH, PROGRAM, f"{WEIGHTS}/model.safetensors"):
        (folder / name).write_text(f"{content} {name}")
    return folder
