from __future__ import annotations

import pytest

from importing.species import species


@pytest.mark.parametrize(
    "label",
    [
        "cat",
        "Cat",
        "CAT",
        "cats",
        "Domestic cat",
        "DomesticCat",
        "domestic_cat",
        "tabby-cat",
        "kitten",
        "Kittens",
        "a photo of a cat",
        "class 0: cat",
        "cat1",
        "cat (domestic)",
        "[0] cat",
        " cat ",
        "tabby, tabby cat",
        "Siamese cat, Siamese",
        "Felis catus; house cat",
    ],
)
def test_names_of_cats(label: str) -> None:
    assert species(label) == "cat"


@pytest.mark.parametrize("label", ["dog", "DOGS", "Guide dog", "stray_dog", "puppy", "Puppies", "dog 2", "my-dog"])
def test_names_of_dogs(label: str) -> None:
    assert species(label) == "dog"


@pytest.mark.parametrize(
    "label",
    [
        "cattle",
        "caterpillar",
        "category",
        "concatenated",
        "hotdog",
        "hot dog",
        "Hot-Dog",
        "HotDog",
        "dogma",
        "bulldozer",
        "cat food",
        "dog house",
        "catfish",
        "cat fish",
        "polecat",
        "prairie dog",
        "Raccoon dog",
        "wild cat",
        "no dog",
        "not a cat",
        "no_cat",
        "non-dog",
        "without dogs",
        "toy dog",
        "bird",
        "LABEL_0",
        "Katze",
        "cat and dog",
        "cat/dog",
        "catdog",
        "CatDog",
        "0",
        " ",
        "",
    ],
)
def test_everything_else_is_neither(label: str) -> None:
    assert species(label) is None
