from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.figures import Figure, Keypoints, Pair
from benchmarks.postures import HIPS, KNEES
from vision.posture import KEYPOINT_NAMES, Alert, Assessment, Posture, assess

SIDES = {"left": 0, "right": 1}
SWAPPED = [KEYPOINT_NAMES.index(_swapped) for _swapped in (
    name.replace("left", "*").replace("right", "left").replace("*", "right") for name in KEYPOINT_NAMES
)]  # fmt: skip


STANDING = Figure()
WALKING = Figure(torso=4, thigh=(25, -15), knee=(5, 15), arm=(-15, 20))
RUNNING = Figure(torso=10, thigh=(35, -10), knee=(30, 90), arm=(-40, 40), elbow=(90, 90))
SPRINTING = Figure(torso=12, thigh=(65, -30), knee=(80, 30), arm=(-50, 60), elbow=(80, 90))
SITTING = Figure(torso=5, thigh=(90, 90), knee=(90, 90), arm=(30, 30), elbow=(50, 50))
CROSS_LEGGED = Figure(thigh=(80, 80), spread=45, crossed_shins=True, arm=(30, 30), elbow=(60, 60))
HUGGING_KNEES = Figure(torso=10, thigh=(130, 130), knee=(125, 125), arm=(60, 60))
SQUATTING = Figure(torso=30, thigh=(105, 105), knee=(130, 130), spread=15, arm=(60, 60))
HALF_CROUCHED = Figure(torso=40, thigh=(65, 60), knee=(95, 95), arm=(40, 40))
KNEELING = Figure(torso=5, thigh=(90, 0), knee=(90, 88))
BENT_OVER = Figure(torso=75, thigh=(0, 0), knee=(8, 8), arm=(75, 75))
FOLDED = Figure(torso=140, thigh=(-5, -5), arm=(140, 140))
ON_ALL_FOURS = Figure(torso=85, thigh=(15, -15), knee=(100, 75), arm=(95, 75), elbow=(5, 5))
ON_THE_BACK = Figure(torso=-90, thigh=(85, 85))
KNEES_UP = Figure(torso=-90, thigh=(130, 130), knee=(100, 100))
ON_THE_BELLY = Figure(torso=90, thigh=(-88, -88))
REACHING = Figure(arm=(170, 0))
ARMS_UP = Figure(arm=(170, 170))
GUARDED = Figure(torso=8, thigh=(32, -18), knee=(20, 20), arm=(50, 50), elbow=(130, 130))
HANGING = Figure(torso=180, thigh=(180, 180), arm=(170, 170))
SLANTED_PLANK = Figure(torso=48, thigh=(-48, -48), arm=(50, 50), elbow=(5, 5))

EXPECTED = {
    "standing": (STANDING, Posture.STANDING, ()),
    "walking": (WALKING, Posture.WALKING, ()),
    "running": (RUNNING, Posture.RUNNING, (Alert.RUNNING,)),
    "sprinting": (SPRINTING, Posture.RUNNING, (Alert.RUNNING,)),
    "sitting": (SITTING, Posture.SITTING, ()),
    "cross-legged": (CROSS_LEGGED, Posture.SITTING, ()),
    "hugging knees": (HUGGING_KNEES, Posture.SITTING, ()),
    "squatting": (SQUATTING, Posture.CROUCHING, (Alert.CROUCHING,)),
    "half crouched": (HALF_CROUCHED, Posture.CROUCHING, (Alert.CROUCHING,)),
    "kneeling": (KNEELING, Posture.CROUCHING, (Alert.CROUCHING,)),
    "bent over": (BENT_OVER, Posture.BENDING, ()),
    "folded": (FOLDED, Posture.BENDING, ()),
    "on all fours": (ON_ALL_FOURS, Posture.CRAWLING, (Alert.CRAWLING,)),
    "on the back": (ON_THE_BACK, Posture.LYING_DOWN, (Alert.LYING_DOWN,)),
    "knees up": (KNEES_UP, Posture.LYING_DOWN, (Alert.LYING_DOWN,)),
    "on the belly": (ON_THE_BELLY, Posture.LYING_DOWN, (Alert.LYING_DOWN,)),
    "reaching": (REACHING, Posture.REACHING_UP, ()),
    "arms up": (ARMS_UP, Posture.REACHING_UP, (Alert.HANDS_RAISED,)),
    "sitting, arms up": (replace(SITTING, arm=(175, 175)), Posture.SITTING, (Alert.HANDS_RAISED,)),
    "guarded": (GUARDED, Posture.WALKING, (Alert.FIGHTING_STANCE,)),
    "hanging upside down": (HANGING, Posture.UNKNOWN, ()),
    "slanted plank": (SLANTED_PLANK, Posture.UNKNOWN, ()),
}
FIGURES = pytest.mark.parametrize("name", EXPECTED)


def expected(name: str) -> Assessment:
    return Assessment(*EXPECTED[name][1:])


def hide(keypoints: Keypoints, *parts: str) -> Keypoints:
    """Take the confidence of every joint whose name holds one of the parts."""
    hidden = keypoints.copy()
    hidden[[any(part in name for part in parts) for name in KEYPOINT_NAMES], 2] = 0.1
    return hidden


def mirror(keypoints: Keypoints) -> Keypoints:
    mirrored = keypoints[SWAPPED].copy()
    mirrored[:, 0] = 640 - mirrored[:, 0]
    return mirrored


def test_keypoint_names_are_in_the_order_of_coco() -> None:
    assert len(KEYPOINT_NAMES) == 17
    assert KEYPOINT_NAMES[0] == "nose"
    assert KEYPOINT_NAMES[5:7] == ("left_shoulder", "right_shoulder")
    assert KEYPOINT_NAMES[15:] == ("left_ankle", "right_ankle")


@FIGURES
def test_a_figure_seen_from_the_side(name: str) -> None:
    assert assess(EXPECTED[name][0].seen()) == expected(name)


@FIGURES
@pytest.mark.parametrize("seed", range(3))
def test_the_answer_does_not_depend_on_scale_place_or_mirroring(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keypoints = EXPECTED[name][0].seen()
    for scale in np.exp(rng.uniform(np.log(0.05), np.log(20), size=6)):
        moved = keypoints.copy()
        moved[:, :2] = moved[:, :2] * scale + rng.uniform(-3000, 3000, size=2)
        assert assess(moved) == expected(name)
        assert assess(mirror(moved)) == expected(name)


@FIGURES
@pytest.mark.parametrize("seed", range(3))
def test_jitter_of_a_hundredth_torso_changes_nothing(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(10):
        shaken = EXPECTED[name][0].seen()
        shaken[:, :2] += rng.normal(0, 1.0, size=(17, 2))
        assert assess(shaken) == expected(name)


@pytest.mark.parametrize("name", ["standing", "squatting", "bent over", "on the back", "folded", "cross-legged"])
@pytest.mark.parametrize("side", SIDES)
def test_one_visible_side_is_enough(name: str, side: str) -> None:
    assert assess(hide(EXPECTED[name][0].seen(turn=5), f"{side}_")).posture == expected(name).posture


@pytest.mark.parametrize(
    ("figure", "posture"),
    [
        (STANDING, Posture.STANDING),
        (SITTING, Posture.SITTING),
        (CROSS_LEGGED, Posture.SITTING),
        (SQUATTING, Posture.CROUCHING),
        (ARMS_UP, Posture.REACHING_UP),
    ],
)
def test_a_figure_that_faces_the_camera(figure: Figure, posture: Posture) -> None:
    assert assess(figure.seen(turn=90)).posture == posture


@pytest.mark.parametrize("turn", range(-60, 61, 15))
@pytest.mark.parametrize("height", [0, 15, 30])
def test_a_sitter_is_never_an_alert(turn: int, height: int) -> None:
    assert assess(SITTING.seen(turn, height)) == Assessment(Posture.SITTING, ())


@pytest.mark.parametrize("height", [0, 20, 40])
@pytest.mark.parametrize("busy", [(0.0, 15.0), (20.0, 85.0), (45.0, 100.0)], ids=["arms down", "carrying", "phoning"])
def test_a_pedestrian_is_never_an_alert(height: int, busy: Pair) -> None:
    rng = np.random.default_rng(0)
    for i in range(10):
        thigh, knee = (HIPS[i], HIPS[i - 5]), (KNEES[i], KNEES[i - 5])
        figure = Figure(torso=4, thigh=thigh, knee=knee, arm=(busy[0], 10), elbow=(busy[1], 20))
        for turn in range(0, 360, 30):
            keypoints = figure.seen(turn, height)
            keypoints[:, :2] += rng.normal(0, 2.0, size=(17, 2))
            answer = assess(keypoints)
            assert answer.alerts == ()
            assert answer.posture in (Posture.STANDING, Posture.WALKING)


def test_crossed_arms_over_feet_apart_are_no_fighting_stance() -> None:
    keypoints = WALKING.seen()
    shoulders = keypoints[5:7, :2]
    keypoints[7:9, :2] = shoulders + np.array((0, 50))
    keypoints[9:11, :2] = shoulders[::-1] + np.array((0, 27))
    assert assess(keypoints).alerts == ()


def test_fists_up_over_closed_feet_are_no_fighting_stance() -> None:
    assert assess(replace(GUARDED, thigh=(0.0, 0.0)).seen()).alerts == ()


def test_one_raised_hand_is_no_alert() -> None:
    assert assess(REACHING.seen(turn=90)) == Assessment(Posture.REACHING_UP, ())


@pytest.mark.parametrize("figure", [ON_THE_BACK, HANGING, BENT_OVER])
def test_arms_stretched_past_the_head_are_raised_only_on_an_upright_body(figure: Figure) -> None:
    assert Alert.HANDS_RAISED not in assess(replace(figure, arm=(200, 200)).seen()).alerts


def test_alerts_of_legs_and_arms_are_reported_together() -> None:
    answer = assess(replace(SQUATTING, torso=20.0, arm=(178, 178)).seen())
    assert answer.alerts == (Alert.CROUCHING, Alert.HANDS_RAISED)


@pytest.mark.parametrize("missing", ["hip", "knee", "shoulder"])
@FIGURES
def test_too_little_evidence_is_unknown(name: str, missing: str) -> None:
    assert assess(hide(EXPECTED[name][0].seen(), missing)).posture == Posture.UNKNOWN


def test_raised_hands_need_no_legs_and_no_face() -> None:
    upper_body = hide(ARMS_UP.seen(turn=90), "hip", "knee", "ankle")
    assert assess(upper_body) == Assessment(Posture.UNKNOWN, (Alert.HANDS_RAISED,))
    assert assess(hide(upper_body, "eye", "ear", "nose")).alerts == (Alert.HANDS_RAISED,)
    assert assess(hide(upper_body, "left_wrist")).alerts == ()
    assert assess(hide(upper_body, "shoulder")).alerts == ()


def test_without_ankles_only_a_thigh_of_full_length_speaks() -> None:
    assert assess(hide(STANDING.seen(), "ankle")).posture == Posture.STANDING
    assert assess(hide(SITTING.seen(), "ankle")).posture == Posture.SITTING
    assert assess(hide(ON_THE_BACK.seen(), "ankle")).posture == Posture.LYING_DOWN
    assert assess(hide(SITTING.seen(turn=90), "ankle")).posture == Posture.UNKNOWN


def test_a_lifted_leg_whose_fellow_shows_no_ankle_is_no_seat() -> None:
    figure = Figure(thigh=(75.0, 0.0), knee=(75.0, 3.0))
    assert assess(hide(figure.seen(), "right_ankle")).posture == Posture.STANDING


def test_a_torso_that_points_at_the_camera_is_unknown() -> None:
    assert assess(BENT_OVER.seen(turn=90)).posture == Posture.UNKNOWN
    assert assess(replace(ON_THE_BACK, arm=(180, 180)).seen(turn=90, height=15)).alerts == ()


def test_min_confidence_decides_which_joints_count() -> None:
    keypoints = STANDING.seen()
    keypoints[:, 2] = 0.5
    assert assess(keypoints).posture == Posture.STANDING
    assert assess(keypoints, min_confidence=0.6).posture == Posture.UNKNOWN
    assert assess(hide(keypoints, "hip"), min_confidence=0.05).posture == Posture.STANDING


@pytest.mark.parametrize("min_confidence", [0.0, 0.5])
def test_no_confidence_is_no_evidence(min_confidence: float) -> None:
    keypoints = ARMS_UP.seen()
    keypoints[:, 2] = 0
    assert assess(keypoints, min_confidence) == Assessment(Posture.UNKNOWN, ())


def test_equal_points_are_unknown() -> None:
    keypoints = np.full((17, 3), 0.9, np.float32)
    keypoints[:, :2] = 123.0
    assert assess(keypoints) == Assessment(Posture.UNKNOWN, ())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.filterwarnings("error")
def test_a_joint_that_is_not_finite_does_not_count(bad: float, column: int) -> None:
    keypoints = ARMS_UP.seen()
    keypoints[9, column] = bad
    assert assess(keypoints) == Assessment(Posture.REACHING_UP, ())
    keypoints[:, column] = bad
    assert assess(keypoints) == Assessment(Posture.UNKNOWN, ())


@FIGURES
@pytest.mark.filterwarnings("error")
def test_any_set_of_missing_joints_gets_an_answer(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        keypoints = EXPECTED[name][0].seen()
        keypoints[rng.random(17) < rng.random(), 2] = 0
        assert isinstance(assess(keypoints), Assessment)


@pytest.mark.parametrize("shape", [(17, 2), (16, 3), (51,), (1, 17, 3), (0,)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(17, 3\)"):
        assess(np.zeros(shape, np.float32))


def test_the_keypoints_are_left_as_they_were() -> None:
    keypoints = WALKING.seen()
    before = keypoints.copy()
    assess(keypoints)
    np.testing.assert_array_equal(keypoints, before)
