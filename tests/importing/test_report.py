from __future__ import annotations

import pytest

from importing.report import Outcome, State, exit_code, table


def test_says_for_each_model_what_from_where_how_large_and_how_exact() -> None:
    text = table(
        [
            Outcome("person_reid", "failed", 0.1, problem="no weights"),
            Outcome(
                "pose_estimator",
                "imported",
                12.34,
                "/zoo/a.pt",
                6_789_840,
                "8d23df921066" * 5,
                {"box_px": 0.0017},
            ),
            Outcome("pet_classifier", "missing", 0.2, problem="no weights"),
            Outcome("depth_estimator", "untrained stand-in", 20.0, "random numbers"),
        ]
    )
    rows = [line.split() for line in text.splitlines()]
    assert rows[2] == ["pose_estimator", "imported", "/zoo/a.pt", "6.8", "8d23df921066", "box_px", "2e-03", "12.3"]
    assert rows[3][:2] == ["person_reid", "FAILED"]
    assert rows[4][:2] == ["pet_classifier", "MISSING"]
    assert rows[5][:3] == ["depth_estimator", "UNTRAINED", "STAND-IN"]


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("imported", ""),
        ("already there", ""),
        ("missing", "-m models.import_models person_reid --source PATH-OR-URL"),
        ("untrained stand-in", "-m models.import_models person_reid --source PATH-OR-URL"),
        ("failed", "-m models.import_models person_reid"),
    ],
)
def test_says_what_to_do_for_a_model_that_is_not_there(state: State, remedy: str) -> None:
    row = table([Outcome("person_reid", state, 1)]).splitlines()[2]
    assert row.endswith(remedy or "1.0")


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["imported", "already there", "untrained stand-in"], 0),
        (["missing", "imported", "imported", "already there"], 3),
        (["already there", "failed"], 3),
        (["missing", "failed"], 1),
        (["failed"], 1),
    ],
)
def test_the_exit_code_tells_all_from_a_part_from_none(states: list[State], code: int) -> None:
    assert exit_code([Outcome("person_reid", state, 1) for state in states]) == code
