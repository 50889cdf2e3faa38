"""Which engine a process takes, and how many calls it is given at a time."""

from __future__ import annotations

import pytest

from runners import engine_choice
from settings import DEFAULT_FILE, load


@pytest.mark.parametrize(("engine", "calls"), [("openvino", engine_choice.MOST_CALLS), ("torch", 1)])
def test_only_openvino_is_given_calls_at_a_time(engine: str, calls: int) -> None:
    settings = load(DEFAULT_FILE, {"ENRICHMENT_ENGINE": engine})
    assert engine_choice.choose(settings, None) == engine
    assert engine_choice.calls_at_a_time(settings, None) == calls
