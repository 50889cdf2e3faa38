"""Lanes: each computes one image at a time through the compiled parts of a graph."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from math import inf, log
from typing import Any, Final, Protocol

import numpy as np
import openvino
from numpy.typing import NDArray

from engines.deadline import Deadline
from vision.arrays import F32

# Tolerance of a logit: absolute, relative. The graph's second part computes the confidence again, and bf16 may round
# it differently (by at most 1/256).
_ROUNDING: Final = (0.02, 1 / 64)


class Lane(Protocol):
    """Runs the compiled parts of a graph for one image. Not thread-safe: one call at a time."""

    first: openvino.InferRequest  # the request of the first part

    def infer(self, image: NDArray[np.uint8], min_confidence: float, deadline: Deadline | None) -> Sequence[F32]:
        """Run an image (1, h, w, 3) uint8; return the graph's outputs, (1, …) each.

        min_confidence, deadline: see Engine.run.
        """
        ...

    def warm_up(self, image: NDArray[np.uint8]) -> None:
        """Run all parts once, also those that this image would skip."""
        ...


class Chain:
    """Runs the parts in order; each takes the outputs of the one before."""

    def __init__(self, parts: Sequence[openvino.CompiledModel]) -> None:
        self.first, *self._others = (part.create_infer_request() for part in parts)

    def infer(
        self,
        image: NDArray[np.uint8],
        min_confidence: float,  # noqa: ARG002 - a chain computes everything
        deadline: Deadline | None,  # noqa: ARG002 - the run is too short to be stopped
    ) -> Sequence[F32]:
        """See Lane.infer."""
        outputs = _run(self.first, [image])
        for request in self._others:
            outputs = _run(request, outputs)
        return outputs

    def warm_up(self, image: NDArray[np.uint8]) -> None:
        """See Lane.warm_up."""
        self.infer(image, 0, None)


class _Run:
    """One run of an infer request. `stop` does nothing after its end: the next run may serve another caller."""

    def __init__(self, request: openvino.InferRequest) -> None:
        self._request = request
        self._lock = threading.Lock()
        self._is_over = False

    def stop(self) -> None:
        with self._lock:
            if not self._is_over:
                self._request.cancel()

    def end(self) -> None:
        with self._lock:
            self._is_over = True


class Stoppable:
    """Runs a slow, whole graph, and stops it when its deadline is abandoned."""

    def __init__(self, whole: openvino.CompiledModel) -> None:
        self.first = whole.create_infer_request()

    def infer(
        self,
        image: NDArray[np.uint8],
        min_confidence: float,  # noqa: ARG002 - the graph computes everything
        deadline: Deadline | None,
    ) -> Sequence[F32]:
        """See Lane.infer. Raises Abandoned if it was stopped."""
        run = _Run(self.first)
        with nullcontext() if deadline is None else deadline.stopping(run.stop):
            self.first.start_async([image], share_inputs=True)
            try:
                self.first.wait()
            except RuntimeError:
                if deadline is not None:
                    deadline.check()
                raise
            finally:
                run.end()
            results = self.first.results
        return [results[index] for index in range(len(results))]

    def warm_up(self, image: NDArray[np.uint8]) -> None:
        """See Lane.warm_up."""
        self.infer(image, 0, None)


class DetectorLane:
    """Runs a parts.DividedDetector, and skips the finest scales if none of their candidates reaches the min_confidence.

    Most pictures have no such candidate. The caller ignores candidates below min_confidence anyway.
    """

    def __init__(self, parts: Sequence[openvino.CompiledModel]) -> None:
        """parts: the trunk, then the rests (see parts.DividedDetector)."""
        self.first, *self._rests = (part.create_infer_request() for part in parts)

    def infer(
        self,
        image: NDArray[np.uint8],
        min_confidence: float,
        deadline: Deadline | None,  # noqa: ARG002 - as in Chain
    ) -> Sequence[F32]:
        """See Lane.infer."""
        features, scores = self._trunk(image)
        least = _least_logit(min_confidence)
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
    """The outputs as views; the request's next run overwrites them."""
    results = request.infer(inputs, share_inputs=True, share_outputs=True)
    return [results[index] for index in range(len(results))]


def _least_logit(min_confidence: float) -> float:
    """The logit of `min_confidence` (0…1), less the tolerance for rounding."""
    if not 0 < min_confidence < 1:
        return -inf if min_confidence <= 0 else inf
    logit = log(min_confidence / (1 - min_confidence))
    return logit - max(_ROUNDING[0], abs(logit) * _ROUNDING[1])
