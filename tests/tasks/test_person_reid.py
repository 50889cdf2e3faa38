"""Embeddings: of length one, whatever the network gives."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.task import Options
from tests.tasks.made import ITEM, REID, card, picture


def test_an_embedding_is_normalised_whatever_its_length() -> None:
    for scale in (1e-20, 1, 1e15):
        outputs = (np.array([3, 4, 0], np.float32) * np.float32(scale),)
        embedding = REID.interpret(outputs, ITEM, card("person_reid"))["embedding"]
        assert embedding.dtype == np.float32
        np.testing.assert_allclose(embedding, [0.6, 0.8, 0], rtol=1e-6)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_an_embedding_without_a_length_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="length"):
        REID.interpret((np.full(512, bad, np.float32),), ITEM, card("person_reid"))


def test_an_embedding_is_printed_with_the_digits_that_a_float32_holds() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    answer = REID.answer([{"embedding": vector, "model_id": "m"}], REID.prepare(picture(8, 8), Options()))
    assert answer.embedding == pytest.approx([0.6, 0.8], abs=1e-7)
    assert max(len(repr(value)) for value in answer.embedding) <= 10
    assert (answer.embedding_dim, answer.embedding_dimension, answer.model_id) == (2, 2, "m")
