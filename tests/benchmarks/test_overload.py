"""What the table of an overload counts."""

from __future__ import annotations

from benchmarks.overload import row


def test_late_is_what_took_too_long_or_never_came_and_refusals_are_not() -> None:
    flooded = [(200, 0.5), (200, 31.0), (429, 0.01), (429, 40.0), (504, 30.1), (0, 2.0)]
    others = [(200, 0.1), (200, 0.1), (503, 0.1), (200, 0.1)]
    cells = row("person_reid", 2, 10, 4, flooded, others).split(" | ")
    assert cells[2:5] == ["2 (0.5/s)", "3", "2 (39600 ms)"]
    assert cells[-1].startswith("75% (100 ms)")
