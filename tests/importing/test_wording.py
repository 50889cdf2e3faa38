from __future__ import annotations

import pytest

from importing.wording import plain, reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ERROR \x1b[31m\x1b[1mno file\x1b[0m\n\tof ours\r\n", "ERROR no file of ours"),
        ("a title\x1b]0;pwned\x07 and\x08\x00 more\x9b31m", "a title and more 31m"),
        ("It failed. Please use `torch.serialization.add_safe_globals([x])` if you trust it.", "It failed."),
        ("Re-run with weights_only=False.", ""),
        (
            "Shapes differ! You may consider adding `ignore_mismatched_sizes=True`. See above.",
            "Shapes differ! See above.",
        ),
        ("x" * 1000, "x" * 300),
    ],
)
def test_a_library_s_words_become_one_plain_line_without_advice_to_switch_checks_off(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_an_error_that_says_nothing_is_called_by_its_kind() -> None:
    assert reason(KeyError()) == "KeyError"
    assert reason(ValueError("set trust_remote_code=True")) == "ValueError"
