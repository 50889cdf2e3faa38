"""Weapons: what the network says of them, and what a caller gets."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.picture import Picture
from tasks.task import Options
from tasks.threat_detector import ThreatResponse, ThreatResult, severity
from tests.tasks.made import ITEM, THREAT, card, picture


@pytest.mark.parametrize(
    ("label", "level"),
    [
        ("Gun", "critical"),
        ("handgun", "critical"),
        ("Assault Rifle", "critical"),
        ("grenade", "critical"),
        ("explosion", "critical"),
        ("explosive", "critical"),
        ("knife", "high"),
        ("Kitchen Knives", "high"),
        ("machete", "high"),
        *(
            (f"a {part}", "critical")
            for part in ("pistol", "rifle", "revolver", "firearm", "weapon", "bomb", "launcher")
        ),
        *((f"a {part}", "high") for part in ("blade", "sword", "dagger", "axe")),
        ("baseball bat", "medium"),
        ("class 7", "medium"),
    ],
)
def test_the_severity_goes_by_the_checkpoints_name(label: str, level: str) -> None:
    assert severity(label) == level


def threats(asked: Picture, *results: ThreatResult) -> ThreatResponse:
    return THREAT.answer(results, THREAT.prepare(asked, Options()))


def test_threats_carry_the_checkpoints_labels() -> None:
    head = np.zeros((8, 4), np.float32)
    head[:4] = np.array([[50, 50, 20, 20], [150, 50, 20, 20], [250, 50, 20, 20], [350, 50, 20, 20]]).T
    head[4:, :] = np.diag([0.6, 0.7, 0.8, 0.9])
    result = THREAT.interpret((head,), ITEM, card("threat_detector"))
    assert result["labels"] == ["knife", "grenade", "explosion", "Gun"]
    assert result["scores"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])


def test_a_weapon_that_reaches_out_of_the_box_is_reported_and_one_beside_it_is_not() -> None:
    reaching, beside = [340.0, 300, 460, 310], [400.0, 300, 440, 400]
    result: ThreatResult = {
        "boxes": np.array([reaching, beside], np.float32),
        "scores": np.array([0.9, 0.8], np.float32),
        "labels": ["Gun", "knife"],
    }
    answer = threats(picture(1920, 1920, (940, 940, 1040, 1040)), result)
    assert [threat.label for threat in answer.threats_detected] == ["Gun"]
    assert answer.max_confidence == 0.9


def test_a_threat_has_its_name_under_every_key_that_callers_read() -> None:
    result: ThreatResult = {
        "boxes": np.array([[10, 20, 110, 220]], np.float32),
        "scores": np.array([0.87], np.float32),
        "labels": ["knife"],
    }
    (threat,) = threats(picture(640, 640), result).model_dump()["threats_detected"]
    assert (threat["class"], threat["class_name"], threat["type"]) == ("knife",) * 3
    assert threat["bbox"] == {"x": 10, "y": 20, "width": 100, "height": 200}
    assert threat["bbox_xyxy"] == [10, 20, 110, 220]


def test_threats_of_different_names_in_one_place_of_a_panorama_both_stay() -> None:
    empty: ThreatResult = {"boxes": np.zeros((0, 4), np.float32), "scores": np.zeros(0, np.float32), "labels": []}
    both: ThreatResult = {
        "boxes": np.array([[100, 112, 200, 212], [100, 112, 200, 212]], np.float32),
        "scores": np.array([0.9, 0.8], np.float32),
        "labels": ["knife", "Gun"],
    }
    answer = threats(picture(5400, 1080), both, empty, empty, empty)
    assert [threat.label for threat in answer.threats_detected] == ["knife", "Gun"]


def test_the_audit_tells_what_was_found_and_where_and_nothing_else() -> None:
    result: ThreatResult = {
        "boxes": np.array([[10, 20, 110, 220]], np.float32),
        "scores": np.array([0.87], np.float32),
        "labels": ["knife"],
    }
    assert THREAT.audit(threats(picture(640, 640), result)) == "knife (high, 0.87) at [10, 20, 110, 220]"
    nothing: ThreatResult = {"boxes": np.zeros((0, 4), np.float32), "scores": np.zeros(0, np.float32), "labels": []}
    assert THREAT.audit(threats(picture(640, 640), nothing)) is None
