from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs import measure
from tools.docs.measure import Page, page


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    return tmp_path


def measured(folder: Path, text: str) -> Page:
    file = folder / "page.md"
    file.write_text(text, encoding="utf-8")
    measure.anchors.cache_clear()
    return page(file)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("One two. Three four five!\n", [2, 3]),
        ("One two\nthree.\n", [3]),
        ("# A heading\n\nOne two.\n", [2]),
        ("- One two.\n- Three\n  four.\n1. Five.\n", [2, 2, 1]),
        ("```sh\nmake run all of it.\n```\n\nOne.\n", [1]),
        ("Run `make run all of it` now.\n", [3]),
        ("See [the long page](page.md) now.\n", [5]),
        ("It takes 1.5 s. Then it ends.\n", [4, 3]),
        ("<!-- one two three -->\nOne.\n", [1]),
        ("| a | b |\n|---|---|\n| c | d |\n", []),
    ],
)
def test_sentences_are_counted(root: Path, text: str, lengths: list[int]) -> None:
    assert list(measured(root, text).sentences) == lengths


def test_a_long_sentence_in_a_table_counts_among_the_long_ones(root: Path) -> None:
    found = measured(root, f"Short one.\n\n| a |\n|---|\n| {'word ' * 40}|\n")
    assert (found.average, found.longest) == (2, 40)
    assert found.share_over(35) > 0


def test_numbers_are_counted_outside_of_code(root: Path) -> None:
    assert measured(root, "It takes 1.5 s of `200` in 3 runs, YOLOv8 [4](x5.md).\n\n```\n6\n```\n").numbers == 3


def test_blocks_of_commands_are_counted(root: Path) -> None:
    text = "".join(f"```{language}\nx\n```\n" for language in ("sh", "python", "json", "sh", "", "yaml"))
    assert measured(root, text).commands == 3


@pytest.mark.parametrize(
    "target", ["none.md", "#none", "other.md#none", "other.md#a-heading-1", "folder/none.png", "../none.md"]
)
def test_a_dead_link_is_found(root: Path, target: str) -> None:
    (root / "other.md").write_text("# A heading\n\n```\n# none\n```\n", encoding="utf-8")
    found = measured(root, f"A [link]({target}) and ![a picture]({target}).\n")
    assert list(found.dead) == [target, target]
    assert measure.problems([found])[0] == f"page.md: dead link {target}"


@pytest.mark.parametrize(
    "target",
    [
        "other.md",
        "other.md#post-a-heading",
        "#the-page",
        "a%20file.md",
        "https://example.org/none.md",
        "mailto:nobody@example.org",
    ],
)
def test_a_living_link_is_none(root: Path, target: str) -> None:
    (root / "other.md").write_text("## `POST /a` heading\n", encoding="utf-8")
    (root / "a file.md").write_text("", encoding="utf-8")
    assert list(measured(root, f"# The page\n\nA [link]({target}).\n").dead) == []


def test_links_in_code_are_none(root: Path) -> None:
    assert list(measured(root, "`[link](none.md)`\n\n```\n[link](none.md)\n```\n").dead) == []


def test_a_page_without_a_link_to_it_is_found(root: Path) -> None:
    first = measured(root, "# One\n\n[Itself](#one)\n")
    other = root / "other.md"
    other.write_text("[Itself](other.md)\n", encoding="utf-8")
    assert measure.problems([first, page(other)]) == ["other.md: no page links to it"]
