"""From which cosine do two crops show one person? The ROC of re-identification on the pictures of a folder.

usage: python -m benchmarks.reid_roc FOLDER [--figure FILE.png]

FOLDER/reid has two crops of each person, `NAME_a` and `NAME_b`; the letters of NAME are the scene. The pose model finds
more people in whole frames: two people in one frame are different people. Prints the tables of
docs/understand/accuracy.md, "Same person".
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import binomtest  # type: ignore[import-untyped]

from benchmarks.precision import pipeline
from tasks.pipeline import Pipeline, read
from vision.arrays import F32, RGB

F64 = NDArray[np.float64]
# Frames with several people. street_mot17_02.jpg is left out: it shows people of the crops.
FRAMES: Final = ("bus.jpg", "children_football.jpg", "street_crowd.jpg")
SURE: Final = 0.5  # confidence of a person in a frame; below it the pose model sees some people twice
MOST_FALSE: Final = 0.01  # share of pairs of different people in one scene that may pass the threshold
OTHERS: Final = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85)  # thresholds to compare with the chosen one
_RESAMPLED: Final = 500


@dataclass(frozen=True)
class Crop:
    """A picture of one person."""

    who: str
    scene: str
    image: RGB


@dataclass(frozen=True)
class Pairs:
    """The cosines of all pairs of crops: of one person, of two people in one scene, and in two scenes."""

    same: F64
    one_scene: F64
    two_scenes: F64

    @classmethod
    def of(cls, crops: Sequence[Crop], matrix: F32) -> Pairs:
        """matrix: cosine of each crop with each other one."""
        first, second = np.triu_indices(len(crops), 1)
        cosines = matrix[first, second].astype(np.float64)
        who, scene = (np.array([getattr(crop, name) for crop in crops]) for name in ("who", "scene"))
        same, near = who[first] == who[second], scene[first] == scene[second]
        return cls(cosines[same], cosines[~same & near], cosines[~same & ~near])


def crops_of(folder: Path) -> list[Crop]:
    """The labelled crops, then the people of the frames."""
    labelled = [
        Crop(path.stem[:-2], path.stem[:-2].rstrip("0123456789"), read(path))
        for path in sorted((folder / "reid").iterdir())
    ]
    pose = pipeline("pose_estimator", "openvino", "f32")
    found = []
    for name in (name for name in FRAMES if (folder / name).exists()):
        image = read(folder / name)
        ((_, answer),) = pose.run([image])
        boxes = [person.bbox for person in answer.persons if person.confidence >= SURE]  # type: ignore[attr-defined]
        found += [
            Crop(f"{name}-{at}", name, _cut(image, box.x, box.y, box.width, box.height)) for at, box in enumerate(boxes)
        ]
    return labelled + found


def embed(reid: Pipeline, images: Sequence[RGB]) -> F32:
    """One embedding a row, (n, 512)."""
    return np.stack([result["embedding"] for result, _ in reid.run(images)])  # type: ignore[typeddict-item]


def chosen(different: F64) -> float:
    """The least threshold of two digits that at most MOST_FALSE of the different pairs pass."""
    allowed = int(MOST_FALSE * len(different))
    return float(math.floor(np.sort(different)[::-1][allowed] * 100 + 1)) / 100


def auc(same: F64, different: F64) -> float:
    """The chance that a pair of one person has the greater cosine than a pair of two."""
    return float((same[:, None] > different).mean() + (same[:, None] == different).mean() / 2)


def equal_error_rate(same: F64, different: F64) -> float:
    """The error rate at the threshold that misses and wrongly takes the same share of pairs."""
    thresholds = np.concatenate([same, different])
    missed, false = ((same < thresholds[:, None]).mean(1), (different >= thresholds[:, None]).mean(1))
    return float(((missed + false) / 2)[np.abs(missed - false).argmin()])


def resampled(crops: Sequence[Crop], matrix: F32) -> tuple[float, float]:
    """The 95 % interval of the chosen threshold, if other people had been drawn (bootstrap over people)."""
    people = sorted({crop.who for crop in crops})
    rows = {who: [at for at, crop in enumerate(crops) if crop.who == who] for who in people}
    random = np.random.default_rng(0)
    found = []
    for _ in range(_RESAMPLED):
        drawn = [at for who in random.choice(people, len(people)) for at in rows[who]]
        found.append(chosen(Pairs.of([crops[at] for at in drawn], matrix[np.ix_(drawn, drawn)]).one_scene))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


# ── what befalls a picture ──


def _cut(image: RGB, x: float, y: float, width: float, height: float) -> RGB:
    return image[max(0, round(y)) : round(y + height), max(0, round(x)) : round(x + width)]


def _inner(image: Image.Image) -> Image.Image:
    return ImageOps.crop(image, (image.width // 8, image.height // 8, image.width // 8, image.height // 8))


def _jpeg(image: Image.Image) -> Image.Image:
    image.save(file := io.BytesIO(), "JPEG", quality=20)
    return Image.open(file)


CHANGES: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "mirrored": ImageOps.mirror,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "JPEG of quality 20": _jpeg,
    "half as bright": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "an eighth cut off on each side": _inner,
    "upper half alone": lambda image: image.crop((0, 0, image.width, image.height // 2)),
}


def changed(reid: Pipeline, crops: Sequence[Crop], change: Callable[[Image.Image], Image.Image]) -> F64:
    """The cosines of each person's first crop with the changed second one."""
    pairs = [(one.image, other.image) for one, other in pairwise(crops) if one.who == other.who]
    firsts = embed(reid, [first for first, _ in pairs])
    seconds = embed(reid, [np.asarray(change(Image.fromarray(second))) for _, second in pairs])
    return np.asarray((firsts * seconds).sum(1), np.float64)


# ── the report ──


def _share(passed: NDArray[np.bool_]) -> str:
    count, total = int(passed.sum()), len(passed)
    interval = binomtest(count, total).proportion_ci()
    return f"{count} of {total} = {count / total:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def report(crops: Sequence[Crop], matrix: F32, reid: Pipeline) -> tuple[Pairs, F64, float]:
    """Print the tables. Returns the pairs, the cosines of one person with a changed crop, and the threshold."""
    pairs = Pairs.of(crops, matrix)
    threshold, (low, high) = chosen(pairs.one_scene), resampled(crops, matrix)
    print(f"Weights {reid.card.model_id}, {len({crop.who for crop in crops})} people, {len(crops)} crops.")
    print(f"Threshold **{threshold:.2f}** [{low:.2f}, {high:.2f}].\n")
    print(f"| pairs | count | cosines, least – median – greatest | at least {threshold:.2f} [95 %] | AUC | EER |")
    print("|---|---|---|---|---|---|")
    for name, cosines in (
        ("one person", pairs.same),
        ("two people, one scene", pairs.one_scene),
        ("two people, two scenes", pairs.two_scenes),
    ):
        rates = ("–", "–")
        if cosines is not pairs.same:
            rates = (f"{auc(pairs.same, cosines):.4f}", f"{equal_error_rate(pairs.same, cosines):.1%}")
        spread = " – ".join(f"{value:.2f}" for value in np.percentile(cosines, [0, 50, 100]))
        print(f"| {name} | {len(cosines)} | {spread} | {_share(cosines >= threshold)} | {' | '.join(rates)} |")
    changes = {name: changed(reid, crops, change) for name, change in CHANGES.items()}
    print(f"\n| the second crop is changed | least – median cosine | at least {threshold:.2f} |\n|---|---|---|")
    for name, cosines in {"not at all": pairs.same, **changes}.items():
        spread = f"{cosines.min():.2f} – {np.median(cosines):.2f}"
        print(f"| {name} | {spread} | {(cosines >= threshold).sum()} of {len(cosines)} |")
    all_changed = np.concatenate(list(changes.values()))
    print(f"\nAUC of all changed pairs against one scene: {auc(all_changed, pairs.one_scene):.3f}")
    print("\n| threshold | two people taken for one, one scene | one person found | found, second crop changed |")
    print("|---|---|---|---|")
    for value in sorted({*OTHERS, threshold}):
        sets = (pairs.one_scene, pairs.same, all_changed)
        shares = " | ".join(f"{(cosines >= value).mean():.1%}" for cosines in sets)
        print(f"| {value:.2f} | {shares} |")
    return pairs, all_changed, threshold


def draw(pairs: Pairs, changes: F64, threshold: float, file: Path) -> None:
    """Draw the cosines of all pairs, and the ROC."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = np.linspace(0.2, 1, 81)
    for cosines, colour, name in (
        (pairs.two_scenes, "#b0b0b0", "two people, two scenes"),
        (pairs.one_scene, "#d95f02", "two people, one scene"),
        (pairs.same, "#1b7837", "one person"),
    ):
        shares = np.full(len(cosines), 100 / len(cosines))
        left.hist(cosines, bins, weights=shares, color=colour, alpha=0.65, label=f"{name} ({len(cosines)} pairs)")
    left.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"threshold {threshold:.2f}")
    left.set(xlabel="cosine", ylabel="share of the pairs, %")
    left.legend(frameon=False, fontsize=8)
    for same, colour, name in ((pairs.same, "#1b7837", "as they are"), (changes, "#762a83", "second crop changed")):
        label = f"{name} ({len(same)} pairs), AUC {auc(same, pairs.one_scene):.3f}"
        _curve(right, same, pairs.one_scene, colour, label)
        false, true = (float((cosines >= threshold).mean() * 100) for cosines in (pairs.one_scene, same))
        right.plot(false, true, "o", color=colour)
    right.set(xlabel="two people of one scene taken for one, %", ylabel="pairs of one person found, %")
    right.set(xlim=(-0.2, 10), ylim=(0, 103))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(file, dpi=110)


def _curve(axes: Any, same: F64, different: F64, colour: str, label: str) -> None:
    thresholds = np.sort(np.concatenate([same, different, [-1, 1.01]]))[::-1]
    rates = [((different >= value).mean() * 100, (same >= value).mean() * 100) for value in thresholds]
    axes.step(*zip(*rates, strict=True), where="post", color=colour, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    crops = crops_of(arguments.folder)
    reid = pipeline("person_reid", "openvino", "f32")
    embeddings = embed(reid, [crop.image for crop in crops])
    pairs, changes, threshold = report(crops, embeddings @ embeddings.T, reid)
    if arguments.figure:
        draw(pairs, changes, threshold, arguments.figure)


if __name__ == "__main__":
    main()
