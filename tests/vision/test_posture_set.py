"""The labelled figures of benchmarks/postures.py: how often an alarm is false, and how many are recognised."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.figures import FRAME, Camera, Figure
from benchmarks.postures import FALSE_ALARMS, KINDS, Score, scores
from vision.posture import Alert, Assessment, Posture

# A few points below what was measured. The cameras see many figures along their torso, where nothing can be told.
RECALL = {
    "standing": 0.78,
    "walking": 0.32,
    "running": 0.17,
    "one hand up": 0.62,
    "both hands up": 0.81,
    "sitting on a chair": 0.82,
    "squatting": 0.18,
    "half crouched": 0.33,
    "kneeling": 0.42,
    "on all fours": 0.44,
    "lying on the back": 0.53,
    "lying, knees up": 0.45,
    "lying on the belly": 0.45,
    "lying on the side": 0.52,
}


@pytest.fixture(scope="module")
def judged() -> dict[str, Score]:
    """140 figures of each kind."""
    return {score.kind.name: score for score in scores(140)}


def test_at_most_a_fiftieth_of_the_hard_negatives_lies_or_crouches(judged: dict[str, Score]) -> None:
    negatives = [score for score in judged.values() if score.kind.expected is None]
    answers = [answer for score in negatives for answer in score.answers]
    assert len(answers) >= 2000
    assert sum(bool(FALSE_ALARMS & {*answer.alerts}) for answer in answers) <= 0.02 * len(answers)
    assert {score.kind.name: score.false_alarms for score in negatives if score.false_alarms > 0.06} == {}


def test_a_person_on_foot_raises_no_alarm(judged: dict[str, Score]) -> None:
    for name in ("standing", "walking", "one hand up", "both hands up", "child, standing"):
        assert judged[name].false_alarms == 0


@pytest.mark.parametrize("name", RECALL)
def test_the_recall_of_each_posture(judged: dict[str, Score], name: str) -> None:
    assert judged[name].recall >= RECALL[name]


def test_raised_hands_are_an_alert_in_most_views(judged: dict[str, Score]) -> None:
    raised = [Alert.HANDS_RAISED in answer.alerts for answer in judged["both hands up"].answers]
    assert sum(raised) >= 0.7 * len(raised)


def test_every_positive_has_a_floor() -> None:
    assert {kind.name for kind in KINDS if kind.expected} == set(RECALL)


def test_the_figures_are_the_same_for_the_same_seed() -> None:
    first, second = (KINDS[0].draw(np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (17, 3)


def test_a_false_alarm_is_one_that_is_not_the_figures_posture() -> None:
    lying = Assessment(Posture.LYING_DOWN, (Alert.LYING_DOWN,))
    kinds = {kind.name: kind for kind in KINDS}
    assert Score(kinds["lying on the back"], (lying,)).false_alarms == 0
    assert Score(kinds["kneeling"], (lying,)).false_alarms == 1
    assert Score(kinds["plank"], (lying,)).false_alarms == 1


def test_a_camera_sees_a_near_figure_larger_and_the_floor_below_the_horizon() -> None:
    near, far = (Camera(height=1.5, distance=distance, turn=90).sees(Figure()) for distance in (4.0, 8.0))
    tall = [flat[15:, 1].mean() - flat[0, 1] for flat in (near, far)]
    assert tall[0] == pytest.approx(2 * tall[1], rel=0.05)
    assert (near[15:, 1] > FRAME[1] / 2).all()
    assert near[5, 0] > FRAME[0] / 2 > near[6, 0]  # facing the camera, the left shoulder is to the right


def test_from_straight_above_a_body_is_foreshortened() -> None:
    level, above = (Camera(height, 2.0, 0, pitch=pitch).sees(Figure()) for height, pitch in ((1.0, 0), (4.0, 60)))
    torso = [np.linalg.norm(flat[5:7].mean(0) - flat[11:13].mean(0)) for flat in (level, above)]
    assert torso[1] < 0.7 * torso[0]
