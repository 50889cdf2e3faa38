"""The runner services: one process for all models (placement: shared) or one each (isolated), of the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import bentoml

from models.catalogue import ModelName
from runners import (
    bentoml_cures,
    depth_estimator,
    engines,
    person_reid,
    pet_classifier,
    pose_estimator,
    threat_detector,
)
from runners.runner import Network, Runner, weights_attributes
from settings import Settings

_MIXINS: Final[Mapping[ModelName, tuple[type[Runner], Network]]] = MappingProxyType(
    {
        "pose_estimator": (pose_estimator.PoseEstimator, pose_estimator.NETWORK),
        "threat_detector": (threat_detector.ThreatDetector, threat_detector.NETWORK),
        "person_reid": (person_reid.PersonReid, person_reid.NETWORK),
        "pet_classifier": (pet_classifier.PetClassifier, pet_classifier.NETWORK),
        "depth_estimator": (depth_estimator.DepthEstimator, depth_estimator.NETWORK),
    }
)


def compose(settings: Settings) -> Mapping[ModelName, bentoml.Service[Any]]:
    """The runner service of each assigned model: the same one five times, or five."""
    bentoml_cures.install(tracing=settings.tracing.endpoint is not None)
    names = settings.assigned()
    if settings.placement == "isolated":
        return {name: _service(f"enrichment-{name.replace('_', '-')}", [name], settings) for name in names}
    if not names:
        return {}
    return dict.fromkeys(names, _service("enrichment-runner", names, settings))


def _service(service_name: str, names: Sequence[ModelName], settings: Settings) -> bentoml.Service[Any]:
    members = {"networks": tuple(_MIXINS[name][1] for name in names), "__doc__": f"Runs {', '.join(names)}."}
    bases = tuple(_MIXINS[name][0] for name in names)
    inner: type[Runner] = type("EnrichmentRunner", bases, members | weights_attributes(names))
    service = bentoml.service(
        name=service_name,
        # One limiter for all methods of the process: with fewer, a 3 s depth call would hold re-identification back.
        threads=len(names) * engines.MOST_CALLS,
        traffic={"timeout": settings.limits.request_timeout_s * 2},  # a backstop: the API's own timeout comes first
        runner_connection=bentoml_cures.RUNNER_CONNECTION,
        logging={"access": {"enabled": False}},  # the API logs each request already, and the heartbeat is one a second
    )(inner)
    inner.service = service
    return service
