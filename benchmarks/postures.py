"""How often are postures recognised, and how often is lying_down or crouching a false alarm?

usage: python -m benchmarks.postures [--figures N]

Labelled stick figures under simulated cameras, N of each kind (default 250). Cameras hang 0.5 to 4 m high and see the
figure from all around. Joints shake by some pixels, some are unseen, and those outside the frame are. Prints the table
of docs/understand/postures.md. Real joints err in other ways, so these are upper limits.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from benchmarks.figures import FRAME, TORSO_M, Camera, Figure, Keypoints, Pair
from vision.posture import Alert, Assessment, Posture, assess

Random = np.random.Generator
FALSE_ALARMS: Final = frozenset({Alert.LYING_DOWN, Alert.CROUCHING})
SEED: Final = 19
# Hip and knee over one gait cycle, every tenth of it: Winter, Biomechanics and Motor Control, normal cadence.
HIPS: Final = (25, 22, 13, 3, -6, -11, -5, 10, 24, 28)
KNEES: Final = (5, 17, 17, 10, 6, 13, 38, 62, 55, 22)


@dataclass(frozen=True)
class Kind:
    """A kind of figure. expected: its posture, or None for a hard negative, where only alarms count."""

    name: str
    make: Callable[[Random], Figure]
    expected: Posture | None = None
    child: bool = False
    above: bool = False  # the camera is steeply above the figure

    def draw(self, random: Random) -> Keypoints:
        """Return the (17, 3) keypoints of one figure of this kind: x, y in pixels (y down), confidence 0…1."""
        figure, torso = self.make(random), TORSO_M * random.uniform(0.9, 1.1)
        if self.child:  # of 3 to 8 years, 1 to 1.3 m: shorter legs (Snyder et al., Anthropometry of Infants …, 1977)
            figure, torso = replace(figure, leg=random.uniform(0.69, 0.78)), random.uniform(0.31, 0.38)
        camera = _camera(random, self.above)
        flat = camera.sees(figure, torso)
        flat += random.normal(0, 1 + 0.02 * 900 * torso / camera.distance, flat.shape)
        confidence = random.uniform(0.55, 0.98, 17)
        unseen = (random.random(17) < random.uniform(0, 0.15)) | np.any((flat < 0) | (flat > FRAME), axis=1)
        confidence[unseen] = random.uniform(0.02, 0.45, 17)[unseen]
        return np.column_stack((flat, confidence)).astype(np.float32)


def _camera(random: Random, above: bool) -> Camera:
    height, distance = (random.uniform(2.5, 4), random.uniform(1, 2.5)) if above else (
        random.uniform(0.5, 4), random.uniform(2.5, 10)
    )  # fmt: skip
    pitch = np.degrees(np.arctan2(height - 0.8, distance)) + random.uniform(-8, 8)  # roughly at the person
    turn, bearing, roll = random.uniform(0, 360), random.uniform(-25, 25), random.uniform(-3, 3)
    return Camera(height, distance, turn, bearing, pitch, roll)


def _about(random: Random, value: float, spread: float = 6.0) -> float:
    return float(random.uniform(value - spread, value + spread))


def _both(random: Random, value: float, spread: float = 6.0) -> Pair:
    """Two sides that are alike."""
    middle = _about(random, value, spread)
    return _about(random, middle, 4), _about(random, middle, 4)


def _either(random: Random, first: float, second: float, spread: float = 6.0) -> tuple[Pair, bool]:
    """Two sides that differ, in either order."""
    pair, swapped = (_about(random, first, spread), _about(random, second, spread)), bool(random.random() < 0.5)
    return (pair[::-1] if swapped else pair), swapped


def _one(random: Random, *pairs: Pair, spread: float = 6.0) -> Iterator[Pair]:
    """For each pair of the leading and the other side: left and right, the same side leading in all."""
    step = int(random.choice((1, -1)))
    for pair in pairs:
        first, second = (_about(random, value, spread) for value in pair)
        yield (first, second) if step > 0 else (second, first)


def _arms(random: Random, figure: Figure) -> Figure:
    """Arms as they come: hanging, hands before the body, one at the ear."""
    arm = random.choice(((0, 0), (25, 25), (20, 45)))
    elbow = random.choice(((12, 12), (60, 60), (90, 15), (15, 120)))
    return replace(figure, arm=(float(arm[0]), float(arm[1])), elbow=(float(elbow[0]), float(elbow[1])))


def standing(random: Random) -> Figure:
    return _arms(random, Figure(_about(random, 2, 5), _both(random, 0, 5), _both(random, 5, 4), _about(random, 5, 4)))


def walking(random: Random) -> Figure:
    at = int(random.integers(10))
    thigh, knee = (HIPS[at], HIPS[at - 5]), (KNEES[at], KNEES[at - 5])
    return _arms(random, Figure(_about(random, 4, 4), thigh, knee))


def running(random: Random) -> Figure:
    thigh, knee, arm = _one(random, (40, -12), (35, 92), (-40, 40))
    return Figure(_about(random, 10), thigh, knee, arm=arm, elbow=_both(random, 90, 10))


def reaching(random: Random) -> Figure:
    (arm,) = _one(random, (168, 0))
    return replace(standing(random), arm=arm, elbow=(10.0, 10.0))


def hands_raised(random: Random) -> Figure:
    return replace(standing(random), arm=_both(random, 165), arm_out=_about(random, 15), elbow=_both(random, 20, 15))


def sitting(random: Random) -> Figure:
    thigh, knee = _both(random, 88), _both(random, 85, 12)
    return Figure(_about(random, 3, 10), thigh, knee, _about(random, 8), _both(random, 30, 15), elbow=_both(random, 50))


def squatting(random: Random) -> Figure:
    thigh, knee, arm = _both(random, 105, 8), _both(random, 128, 6), _both(random, 60, 15)
    return Figure(_about(random, 28, 8), thigh, knee, _about(random, 15, 8), arm, elbow=_both(random, 30, 25))


def half_crouched(random: Random) -> Figure:
    thigh, knee = _both(random, 62), _both(random, 93)
    return Figure(_about(random, 40, 8), thigh, knee, arm=_both(random, 40, 15), elbow=_both(random, 40, 25))


def kneeling(random: Random) -> Figure:
    thigh, knee = _one(random, (90, 0), (90, 88), spread=5)
    return Figure(_about(random, 6), thigh, knee, arm=_both(random, 15), elbow=_both(random, 40, 20))


def crawling(random: Random) -> Figure:
    thigh, knee, arm = _one(random, (15, -12), (100, 77), (75, 95), spread=5)
    return Figure(_about(random, 84, 5), thigh, knee, arm=arm, elbow=(8.0, 8.0))


def on_the_back(random: Random) -> Figure:
    arm, out = _both(random, 5, 10), _about(random, 25, 20)
    return Figure(-90, _both(random, 87, 4), _both(random, 5, 5), _about(random, 8, 5), arm, out)


def knees_up(random: Random) -> Figure:
    return Figure(-90, _both(random, 130, 8), _both(random, 95, 10), _about(random, 5), arm=_both(random, 0, 10))


def on_the_belly(random: Random) -> Figure:
    # On the floor, so no arm points down from the trunk: at the sides, spread, or past the head.
    forward, out = random.choice((0.0, 180.0)), random.uniform(5, 80)
    arm, elbow = _both(random, forward, 4), (2.0, 2.0)
    return Figure(90, _both(random, -88, 3), _both(random, 3, 3), _about(random, 8, 5), arm, out, elbow)


def on_the_side(random: Random) -> Figure:
    thigh, knee, arm = _both(random, 35, 25), _both(random, 50, 25), _both(random, 45, 30)
    return Figure(_about(random, 8, 8), thigh, knee, 3, arm, elbow=_both(random, 50, 30), roll=90)


def bending(random: Random) -> Figure:
    torso = random.uniform(60, 125)
    return Figure(torso, _both(random, 2, 8), _both(random, 15, 12), _about(random, 5, 4), _both(random, torso, 12))


def tying_a_shoe_bent(random: Random) -> Figure:
    torso = random.uniform(95, 130)
    thigh, knee = _one(random, (25, 0), (30, 15), spread=8)
    return Figure(torso, thigh, knee, arm=_both(random, torso + 10, 8), elbow=_both(random, 10, 8))


def tying_a_shoe_kneeling(random: Random) -> Figure:
    """One knee on the floor, the trunk over the other thigh, both hands at the front foot."""
    thigh, knee = _one(random, (100, 5), (110, 95), spread=5)
    torso = random.uniform(55, 75)
    return Figure(torso, thigh, knee, arm=_both(random, torso, 5), arm_out=2.0, elbow=_both(random, 5, 5))


def cross_legged(random: Random) -> Figure:
    figure = Figure(_about(random, 5, 10), _both(random, 80, 5), spread=_about(random, 45), crossed_shins=True)
    return replace(figure, arm=_both(random, 30, 10), elbow=_both(random, 60, 20))


def hugging_knees(random: Random) -> Figure:
    return Figure(_about(random, 12, 8), _both(random, 130), _both(random, 125), arm=_both(random, 55, 10))


def legs_out(random: Random) -> Figure:
    thigh, knee = _both(random, 90, 4), _both(random, 8)
    return Figure(_about(random, -8, 10), thigh, knee, _about(random, 8), arm=_both(random, 15, 20))


def on_a_low_sofa(random: Random) -> Figure:
    thigh, knee = _both(random, 103), _both(random, 95, 12)
    return Figure(_about(random, -18, 10), thigh, knee, _about(random, 8), arm=_both(random, 30, 15))


def leaning_on_a_chair(random: Random) -> Figure:
    thigh, knee, arm = _both(random, 88, 5), _both(random, 95, 8), _both(random, 45, 15)
    return Figure(_about(random, 38, 12), thigh, knee, _about(random, 8), arm, elbow=_both(random, 50, 20))


def plank(random: Random) -> Figure:
    slope = random.uniform(64, 72)  # straight arms
    return Figure(slope, _both(random, -slope, 3), arm=_both(random, slope, 5), arm_out=3, elbow=_both(random, 5, 5))


def forearm_plank(random: Random) -> Figure:
    slope = _about(random, 80, 3)
    return Figure(slope, _both(random, -slope, 3), arm=_both(random, slope, 5), arm_out=3, elbow=_both(random, 88, 4))


def push_up(random: Random) -> Figure:
    """Half-way down: the upper arms point back, the forearms stand."""
    slope, arm = _about(random, 77, 4), random.uniform(-10, 40)
    return Figure(slope, _both(random, -slope, 3), arm=(arm, arm), arm_out=20, elbow=(slope - arm, slope - arm))


KINDS: Final = (
    Kind("standing", standing, Posture.STANDING),
    Kind("walking", walking, Posture.WALKING),
    Kind("running", running, Posture.RUNNING),
    Kind("one hand up", reaching, Posture.REACHING_UP),
    Kind("both hands up", hands_raised, Posture.REACHING_UP),
    Kind("sitting on a chair", sitting, Posture.SITTING),
    Kind("squatting", squatting, Posture.CROUCHING),
    Kind("half crouched", half_crouched, Posture.CROUCHING),
    Kind("kneeling", kneeling, Posture.CROUCHING),
    Kind("on all fours", crawling, Posture.CRAWLING),
    Kind("lying on the back", on_the_back, Posture.LYING_DOWN),
    Kind("lying, knees up", knees_up, Posture.LYING_DOWN),
    Kind("lying on the belly", on_the_belly, Posture.LYING_DOWN),
    Kind("lying on the side", on_the_side, Posture.LYING_DOWN),
    Kind("bending", bending),
    Kind("tying a shoe, bent", tying_a_shoe_bent),
    Kind("tying a shoe, on a knee", tying_a_shoe_kneeling),
    Kind("cross-legged", cross_legged),
    Kind("hugging the knees", hugging_knees),
    Kind("legs stretched out", legs_out),
    Kind("on a low sofa", on_a_low_sofa),
    Kind("leaning on a chair", leaning_on_a_chair),
    Kind("plank", plank),
    Kind("plank on the forearms", forearm_plank),
    Kind("push-up", push_up),
    Kind("child, standing", standing, child=True),
    Kind("child, walking", walking, child=True),
    Kind("standing, from above", standing, above=True),
    Kind("walking, from above", walking, above=True),
    Kind("child, from above", walking, child=True, above=True),
)


@dataclass(frozen=True)
class Score:
    """The answers to the figures of one kind."""

    kind: Kind
    answers: tuple[Assessment, ...]

    @property
    def recall(self) -> float:
        return sum(answer.posture == self.kind.expected for answer in self.answers) / len(self.answers)

    @property
    def false_alarms(self) -> float:
        """Share of figures with a `FALSE_ALARMS` alert that is not their posture."""
        expected = {alert for alert in FALSE_ALARMS if alert.value == self.kind.expected}
        return sum(bool((FALSE_ALARMS - expected) & {*answer.alerts}) for answer in self.answers) / len(self.answers)

    @property
    def otherwise(self) -> str:
        """The commonest other postures."""
        others = Counter(answer.posture for answer in self.answers if answer.posture != self.kind.expected)
        return ", ".join(f"{posture} {count / len(self.answers):.0%}" for posture, count in others.most_common(3))


def scores(figures: int, seed: int = SEED) -> list[Score]:
    """Judge `figures` of each kind."""
    random = np.random.default_rng(seed)
    return [Score(kind, tuple(assess(kind.draw(random)) for _ in range(figures))) for kind in KINDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=int, default=250, metavar="N")
    table = scores(parser.parse_args().figures)
    print("| figure | recall | else answered | false `lying_down` or `crouching` |\n|---|---|---|---|")
    for score in table:
        recall = f"{score.recall:.0%} {score.kind.expected}" if score.kind.expected else "–"
        print(f"| {score.kind.name} | {recall} | {score.otherwise} | {score.false_alarms:.1%} |")
    negatives = [score.false_alarms for score in table if not score.kind.expected]
    print(f"| all hard negatives | – | | {np.mean(negatives):.1%} |")


if __name__ == "__main__":
    main()
