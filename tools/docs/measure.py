"""Measures README and docs: words, lengths of sentences, numbers, commands, dead links, and pages without a link."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Final
from urllib.parse import unquote

from tools.docs.text import ROOT

LONG: Final = 25  # words of a sentence
TOO_LONG: Final = 35
_FENCE: Final = re.compile(r"^ *(```|~~~).*?^ *\1[^\n]*$", re.MULTILINE | re.DOTALL)
_COMMANDS: Final = re.compile(r"^```(?:sh|python)$", re.MULTILINE)
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE: Final = re.compile(r"(`+)(?:(?!\1).)+\1", re.DOTALL)
_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_ELSEWHERE: Final = re.compile(r"[a-z]+:")
_BULLET: Final = re.compile(r"^ *(?:[-*+]|\d+\.) +(.*)$")
_END: Final = re.compile(r"(?<=[.!?])[*_)”\"]* +(?=[A-Z`*_(\[“\"]|\d)")
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Page:
    """One Markdown file.

    words: as `wc -w` counts them. sentences: their lengths in words, from paragraphs and lists. cells: the same of
    table cells. numbers: outside of code. commands: blocks of shell and Python, which
    tests/serving/test_documentation.py runs. dead: links to files or headings that do not exist. links: existing files.
    """

    file: Path
    words: int
    sentences: Sequence[int]
    cells: Sequence[int]
    numbers: int
    commands: int
    dead: Sequence[str]
    links: Sequence[Path]

    @property
    def name(self) -> str:
        return str(self.file.relative_to(ROOT))

    @property
    def average(self) -> float:
        """The mean length of a sentence in words. Cells, which are mostly single words, do not count."""
        return mean(self.sentences or [0])

    @property
    def longest(self) -> int:
        return max([*self.sentences, *self.cells], default=0)

    def share_over(self, words: int) -> float:
        """The share of sentences with more words, 0…1."""
        found = [*self.sentences, *self.cells]
        return sum(length > words for length in found) / max(1, len(found))


def pages(root: Path = ROOT) -> list[Page]:
    """Measure the README and all pages of docs/."""
    return [page(file) for file in (root / "README.md", *sorted((root / "docs").rglob("*.md")))]


def page(file: Path) -> Page:
    """Measure one file."""
    text = file.read_text(encoding="utf-8")
    prose = _COMMENT.sub("", _FENCE.sub("\n\n", text))
    found = list(_links(file, prose))
    return Page(
        file=file,
        words=len(text.split()),
        sentences=_lengths(_blocks(prose)),
        cells=_lengths(_cells(prose)),
        numbers=len(_NUMBER.findall(_LINK.sub(r"\2", _CODE.sub(" ", prose)))),
        commands=len(_COMMANDS.findall(text)),
        dead=[target for target, place in found if place is None],
        links=[place for _, place in found if place is not None],
    )


def problems(found: Sequence[Page]) -> list[str]:
    """Return a line for each dead link and for each page that no other page links to."""
    linked = {link for one in found for link in one.links if link != one.file}
    dead = [f"{one.name}: dead link {target}" for one in found for target in one.dead]
    return dead + [f"{one.name}: no page links to it" for one in found[1:] if one.file not in linked]


def table(found: Sequence[Page]) -> str:
    """Return the measures as a table in plain text."""
    lines = [f"{'page':44} words  average  over {LONG}  longest  numbers  commands"]
    for one in found:
        sentences = f"{one.average:8.1f} {one.share_over(LONG):7.0%} {one.longest:8}"
        lines.append(f"{one.name:44} {one.words:5} {sentences} {one.numbers:8} {one.commands:9}")
    return "\n".join(lines)


def anchor(heading: str) -> str:
    """Return the anchor that the forges give a heading."""
    plain = _LINK.sub(r"\2", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@cache
def anchors(file: Path) -> frozenset[str]:
    """The anchors of a Markdown file."""
    prose = _FENCE.sub("", file.read_text(encoding="utf-8"))
    return frozenset(anchor(heading) for heading in re.findall(r"^#+ +(.+)$", prose, re.MULTILINE))


def _links(file: Path, prose: str) -> list[tuple[str, Path | None]]:
    """Return target and file of each relative link and picture. None: the file or its heading does not exist."""
    found = []
    for _, _, target in _LINK.findall(_CODE.sub(lambda match: match[0].replace("[", "(").replace("]", ")"), prose)):
        if _ELSEWHERE.match(target):
            continue
        path, _, fragment = unquote(target).partition("#")
        place = (file.parent / path).resolve() if path else file
        exists = place.exists() and (not fragment or (place.suffix == ".md" and fragment in anchors(place)))
        found.append((target, place if exists else None))
    return found


def _blocks(prose: str) -> list[str]:
    """Return the paragraphs and list items, without headings and tables."""
    blocks, block = [], [""]
    for line in [*prose.splitlines(), ""]:
        bullet = _BULLET.match(line)
        if not line.strip() or line.lstrip().startswith(("|", "#")) or bullet:
            blocks.append(" ".join(block))
            block = [bullet[1]] if bullet else []
        else:
            block.append(line.strip().removeprefix("> "))
    return [*blocks, " ".join(block)]


def _cells(prose: str) -> list[str]:
    lines = [line.strip() for line in prose.splitlines() if line.lstrip().startswith("|")]
    return [cell for line in lines for cell in re.split(r"(?<!\\)\|", line)]


def _lengths(blocks: Sequence[str]) -> list[int]:
    """Return the number of words of each sentence. Code counts as one word, and a link as its text."""
    lengths = []
    for block in blocks:
        plain = _CODE.sub("Code", _LINK.sub(lambda match: "" if match[1] else match[2], block))
        for sentence in _END.split(plain):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if words:
                lengths.append(len(words))
    return lengths
