"""Re-identification against torchreid's own feature extractor, with its own transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from settings import EngineChoice, Precision
from tasks.person_reid import ReidResponse
from tasks.similarity import threshold_for
from tests.parity.conftest import ENGINES, Make
from vision.arrays import F32, RGB


@pytest.fixture(scope="module")
def official(zoo: Path, images: dict[str, RGB]) -> F32:
    """(images, 512), L2-normalised."""
    from torchreid.reid.utils import FeatureExtractor

    weights = zoo / "model-zoo/osnet-x0-25/osnet_x0_25.pth"
    extractor = FeatureExtractor("osnet_x0_25", str(weights), device="cpu", verbose=False)
    features: F32 = np.concatenate([extractor(image).numpy() for image in images.values()])
    normalised: F32 = features / np.linalg.norm(features, axis=1, keepdims=True)
    return normalised


def embeddings(make: Make, engine: EngineChoice, precision: Precision, images: dict[str, RGB]) -> NDArray[np.float64]:
    rows = []
    for _, answer in make("person_reid", engine, precision).run(list(images.values())):
        assert isinstance(answer, ReidResponse)
        assert answer.embedding_dim == answer.embedding_dimension == len(answer.embedding) == 512
        rows.append(answer.embedding)
    return np.array(rows)


@ENGINES
def test_the_same_embeddings(engine: EngineChoice, make: Make, images: dict[str, RGB], official: F32) -> None:
    ours = embeddings(make, engine, "f32", images)
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() < 1e-5
    assert (ours * official).sum(axis=1).min() >= 0.9999


@pytest.mark.weights
def test_auto_precision_keeps_every_nearest_neighbour(
    make: Make, images: dict[str, RGB], image_files: list[Path]
) -> None:
    """Every person crop's nearest other crop is the same person's, in full and in reduced precision."""
    people = {path.name: images[path.name] for path in image_files if path.parent.name == "reid"}
    who = [name.rsplit("_", 1)[0] for name in people]
    exact, reduced = (embeddings(make, "openvino", precision, people) for precision in ("f32", "auto"))
    assert (exact * reduced).sum(axis=1).min() >= 0.995
    for rows in (exact, reduced):
        nearest = (rows @ rows.T - 2 * np.eye(len(rows))).argmax(axis=1)
        assert [who[index] for index in nearest] == who


@pytest.mark.weights
@pytest.mark.parametrize("precision", ["f32", "auto"])
def test_the_threshold_tells_the_crops_apart(
    precision: Precision, make: Make, images: dict[str, RGB], image_files: list[Path]
) -> None:
    people = {path.name: images[path.name] for path in image_files if path.parent.name == "reid"}
    who = np.array([name.rsplit("_", 1)[0] for name in people])
    rows = embeddings(make, "openvino", precision, people)
    threshold = threshold_for(make("person_reid", "openvino", precision).card.model_id, None, None)
    assert threshold.source == "measured"
    np.testing.assert_array_equal(rows @ rows.T >= threshold.value, who[:, None] == who)
