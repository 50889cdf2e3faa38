"""Compares the embeddings of two people: their cosine, a ranking, and the threshold of one person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, Field

from tasks.person_reid import ReidResponse
from tasks.pose_estimator import PoseResponse
from tasks.task import Answer
from vision.arrays import F32

DIMENSION: Final = 512  # of OSNet's embeddings
# First 12 digits of the weights' sha256, the end of their model_id → cosine from which two images show one person.
# benchmarks/reid_roc.py measures it; docs/understand/accuracy.md says how, and what it does not say.
MEASURED: Final[Mapping[str, float]] = MappingProxyType({"6f57607fed9f": 0.78})
BORROWED: Final = 0.78  # for weights that were not measured
# The least confidence of a person in view. At 0.55 the pose model finds 28 of 32 crops, and nobody in 16 other images.
PERSON_CONFIDENCE: Final = 0.55
_DIGITS: Final = 6  # of a cosine: a float32 holds no more

ThresholdSource = Literal["measured", "borrowed", "setting", "request"]


@dataclass(frozen=True)
class Embedding:
    """vector: (512,) float32, L2-normalised. model_id: ModelCard.model_id of the weights that made it."""

    vector: F32
    model_id: str


@dataclass(frozen=True)
class Threshold:
    """value: cosine, 0…1. source: see CompareResponse.threshold_source."""

    value: float
    source: ThresholdSource


def embedding_of(answer: Answer) -> Embedding:
    """Return the embedding of an answer of PersonReid."""
    assert isinstance(answer, ReidResponse)
    return Embedding(unit(answer.embedding), answer.model_id)


def shows_person(answer: Answer) -> bool:
    """Whether an answer of PoseEstimator has a person."""
    assert isinstance(answer, PoseResponse)
    return answer.num_people > 0


class Side(BaseModel):
    """One side of a comparison."""

    person_in_view: bool | None = Field(
        description="whether the pose model found a person in the image; null for an embedding, or if it did not look"
    )


class _Verdict(Answer):
    threshold: float = Field(description="the cosine from which two embeddings count as one person")
    threshold_source: ThresholdSource = Field(
        description="measured: with these weights; borrowed: measured with other weights, so calibrate it;"
        " setting: same_person_threshold; request: the call's own"
    )
    model_id: str = Field(description="the weights of all embeddings that were compared")


class CompareResponse(_Verdict):
    """Whether two images or embeddings show the same person."""

    cosine: float = Field(ge=-1, le=1)
    same_person: bool = Field(description="cosine ≥ threshold; true for two pictures of one empty scene, too")
    first: Side
    second: Side


class Match(BaseModel):
    """A candidate under its caller's id."""

    id: str
    cosine: float = Field(ge=-1, le=1)


class MatchResponse(_Verdict):
    """The candidates that show the query's person."""

    matches: list[Match] = Field(description="candidates with cosine ≥ threshold, best first; equal ones as sent")
    compared: int = Field(description="number of candidates")
    best: Match = Field(description="the best candidate, whether it is a match or not")
    query: Side


def unit(values: Sequence[float] | F32) -> F32:
    """Return a vector, scaled to length one, as float32.

    Raises ValueError if it does not have 512 numbers, if one is not finite, or if all are zero.
    """
    vector = np.asarray(values, np.float64)
    if vector.shape != (DIMENSION,):
        raise ValueError(f"must have {DIMENSION} numbers; {vector.size} were received")
    finite = np.isfinite(vector)
    if not finite.all():
        raise ValueError(f"must have finite numbers; number {int(finite.argmin())} is not")
    largest = np.abs(vector).max()
    if largest == 0:
        raise ValueError("must have a length; all of its numbers are zero")
    scaled = vector / largest  # so that no square overflows or vanishes
    return np.asarray(scaled / np.linalg.norm(scaled), np.float32)


def threshold_for(model_id: str, setting: float | None, requested: float | None) -> Threshold:
    """Return the threshold for embeddings of these weights: the request's, else the setting, else the measured one."""
    if requested is not None:
        return Threshold(requested, "request")
    if setting is not None:
        return Threshold(setting, "setting")
    measured = MEASURED.get(model_id.rpartition("@")[2])
    return Threshold(BORROWED, "borrowed") if measured is None else Threshold(measured, "measured")


def compare(first: Embedding, second: Embedding, threshold: Threshold, sides: tuple[Side, Side]) -> CompareResponse:
    """Compare two embeddings of one model_id."""
    (cosine,) = _cosines(first.vector, second.vector[np.newaxis])
    return CompareResponse(
        cosine=cosine,
        same_person=cosine >= threshold.value,
        threshold=threshold.value,
        threshold_source=threshold.source,
        model_id=first.model_id,
        first=sides[0],
        second=sides[1],
    )


def match(
    query: Embedding, ids: Sequence[str], candidates: F32, threshold: Threshold, side: Side, top: int | None = None
) -> MatchResponse:
    """Rank candidates by their cosine with the query, all of one model_id.

    candidates: (n, 512) float32, L2-normalised; n > 0. top: the largest number of matches listed.
    """
    cosines = _cosines(query.vector, candidates)
    ranking = sorted(range(len(ids)), key=lambda at: -cosines[at])
    passing = [at for at in ranking if cosines[at] >= threshold.value]
    return MatchResponse(
        matches=[Match(id=ids[at], cosine=cosines[at]) for at in passing[:top]],
        compared=len(ids),
        best=Match(id=ids[ranking[0]], cosine=cosines[ranking[0]]),
        threshold=threshold.value,
        threshold_source=threshold.source,
        model_id=query.model_id,
        query=side,
    )


def _cosines(query: F32, candidates: F32) -> list[float]:
    """Return the rounded cosines of unit vectors. Decisions rest on these, so that they agree with what is shown."""
    cosines = candidates @ query
    return [float(cosine) for cosine in np.round(np.clip(cosines.astype(np.float64), -1, 1), _DIGITS)]
