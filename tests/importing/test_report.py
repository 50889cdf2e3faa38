from __future__ import annotations

from importing.report import Outcome, table


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
            Outcome("depth_estimator", "untrained stand-in", 20.0, "random numbers"),
        ]
    )
    rows = [line.split() for line in text.splitlines()]
    assert rows[2] == ["pose_estimator", "imported", "/zoo/a.pt", "6.8", "8d23df921066", "box_px", "2e-03", "12.3"]
    assert rows[3][:2] == ["person_reid", "FAILED"]
    assert rows[4][:3] == ["depth_estimator", "UNTRAINED", "STAND-IN"]
