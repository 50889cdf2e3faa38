"""Maps a pet classifier's labels to the contract's two species."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Species = Literal["cat", "dog"]

_NOUNS: Final[Mapping[Species, frozenset[str]]] = MappingProxyType(
    {
        "cat": frozenset(("cat", "cats", "kitten", "kittens")),
        "dog": frozenset(("dog", "dogs", "puppy", "puppies")),
    }
)
# Words that turn a cat or dog into another animal, a thing, or its absence.
_OTHERWISE: Final = frozenset(
    {
        "bear",
        "big",
        "civet",
        "corn",
        "hot",
        "jungle",
        "no",
        "non",
        "not",
        "plush",
        "prairie",
        "raccoon",
        "robot",
        "sand",
        "sea",
        "stuffed",
        "toy",
        "wild",
        "without",
    }
)
_SYNONYMS: Final = re.compile(r"[,;/|]")
_ASIDE: Final = re.compile(r"\(.*?\)|\[.*?\]")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # DomesticCat, tabby_cat and CATS alike


def species(label: str) -> Species | None:
    """Return the species that a label names, or None if it names neither or both.

    The last word decides: "tabby cat" is a cat, "cat food" is none. Neither are "cattle" and "hot dog".
    """
    found = {_of(name) for name in _SYNONYMS.split(_ASIDE.sub(" ", label))} - {None}
    return found.pop() if len(found) == 1 else None


def _of(name: str) -> Species | None:
    words = [word.casefold() for word in _WORD.findall(name)]
    named = [species for species, nouns in _NOUNS.items() if not nouns.isdisjoint(words)]
    if len(named) != 1 or words[-1] not in _NOUNS[named[0]] or not _OTHERWISE.isdisjoint(words):
        return None
    return named[0]
