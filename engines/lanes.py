"""What computes one image at a time: the requests of a graph's parts, and what they hand to each other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import inf, log
from typing import Any, Final, Protocol

import numpy as np
import openvino
from numpy.typing import NDArray

from engines.deadline import Deadline
from vision.arrays import F32

# By how much less a score may be before its sigmoid than is asked for, at least and as a share: when all is decoded it
# is computed once more, and in bf16 rounded otherwise (1/256 of it at most).
_ROUNDING: Final = (0.02, 1 / 64)


class Lane(Protocol):
    """One image's way through compiled parts. One call at a time."""

    first: openvino.InferRequest  # of its requests

    def infer(self, image: NDArray[np.uint8], min_score: float, deadline: Deadline | None) -> Sequence[F32]:
        """image: (1, h, w, 3) uint8 → the graph's outputs, (1, …) each. For the others see Engine.run."""
        ...

    def warm_up(self, image: NDArray[np.uint8]) -> None:
        """Run all parts, also those that such an image does not need."""
        ...


class Chain:
    """Parts one after the other, each taking what the one before gives."""

    def __init__(self, parts: Sequence[openvino.CompiledModel]) -> None:
        self.first, *self._others = (part.create_infer_request() for part in parts)

    def infer(
        self,
        image: NDArray[np.uint8],
        min_score: float,  # noqa: ARG002 - all is computed
        deadline: Deadline | None,  # noqa: ARG002 - it has ended before anybody could stop it
    ) -> Sequence[F32]:
        """See Lane.infer."""
        outputs = _run(self.first, [image])
        for request in self._others:
            outputs = _run(request, outputs)
        return outputs

    def warm_up(self, image: NDArray[np.uint8]) -> None:
        """See Lane.warm_up."""
        self.infer(image, 0, None)


class Stoppable:
    """A whole graph that takes so long that it is stopped where nobody waits for it any more."""

    def __init__(self, whole: openvino.CompiledModel) -> None:
        self.first = whole.create_infer_request()

    def infer(
        self,
        image: NDArray[np.uint8],
        min_score: float,  # noqa: ARG002 - all is computed
        deadline: Deadline | None,
    ) -> Sequence[F32]:
        """See Lane.infer. Raises Abandoned where it was stopped."""
        with nullcontext() if deadline is None else deadline.stopping(self.first.cancel):
            self.first.start_async([image], share_inputs=True)
            try:
                self.first.wait()
            except RuntimeError:
                if deadline is not None:
                    deadline.check()
                raise
            results = self.first.results
        return [results[index] for index in range(len(results))]

    def warm_up(self, image: NDArray[np.uint8]) -> None:
        """See Lane.warm_up."""
        self.infer(image, 0, None)


class DetectorLane:
    """A parts.Detector: the finest scales are left out where nothing on them has a score that counts.

    That is so in most pictures; what does not count is thrown away by whoever reads the outputs.
    """

    def __init__(self, parts: Sequence[openvino.CompiledModel]) -> None:
        """parts: the trunk and the rests."""
        self.first, *self._rests = (part.create_infer_request() for part in parts)

    def infer(
        self,
        image: NDArray[np.uint8],
        min_score: float,
        deadline: Deadline | None,  # noqa: ARG002 - as in Chain
    ) -> Sequence[F32]:
        """See Lane.infer."""
        features, scores = self._trunk(image)
        least = _least_logit(min_score)
        counting = (scale for scale, of_scale in enumerate(scores) if not of_scale.max() < least)  # NaN counts
        return self._rest(features, scores, next(counting, len(scores)))

    def warm_up(self, image: NDArray[np.uint8]) -> None:
        """See Lane.warm_up."""
        features, scores = self._trunk(image)
        for left_out in range(len(self._rests)):
            self._rest(features, scores, left_out)

    def _trunk(self, image: NDArray[np.uint8]) -> tuple[list[F32], list[F32]]:
        outputs = _run(self.first, [image])
        scales = len(self._rests) - 1
        return outputs[:scales], outputs[scales:]

    def _rest(self, features: list[F32], scores: list[F32], left_out: int) -> list[F32]:
        return _run(self._rests[left_out], scores + features[left_out:])


def _run(request: openvino.InferRequest, inputs: Sequence[Any]) -> list[Any]:
    """The outputs, in memory that the request's next run writes into."""
    results = request.infer(inputs, share_inputs=True, share_outputs=True)
    return [results[index] for index in range(len(results))]


def _least_logit(min_score: float) -> float:
    """What a score must be before its sigmoid to be `min_score`, 0…1, or nearly so."""
    if not 0 < min_score < 1:
        return -inf if min_score <= 0 else inf
    logit = log(min_score / (1 - min_score))
    return logit - max(_ROUNDING[0], abs(logit) * _ROUNDING[1])
