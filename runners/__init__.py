"""The runner services, of the same classes wherever they run: in the API process (placement: embedded), in one of their
own (shared), or in one for each model (isolated)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import bentoml

import engines
from engines import device
from engines.errors import EngineError
from models.catalogue import ModelName
from runners import bentoml_cures, depth_estimator, person_reid, pet_classifier, pose_estimator, threat_detector
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


Placement = Literal["embedded", "shared", "isolated"]


def placement(settings: Settings) -> Placement:
    """Where the runners run. `auto` is embedded on OpenVINO, which has no device to lose, and shared on torch.

    Raises EngineError where embedded is asked for and torch would be the engine.
    """
    asked = settings.placement
    if asked in ("shared", "isolated"):
        return asked
    on_openvino = engines.choose(settings, device.choose(settings.device.gpu, dict(os.environ))) == "openvino"
    if asked == "embedded" and not on_openvino:
        raise EngineError(
            "ENRICHMENT_PLACEMENT is embedded, and torch would compute: CUDA would take the API with it when it fails."
            " Take auto, shared or isolated; or ENRICHMENT_ENGINE=openvino for the CPU"
        )
    return "embedded" if on_openvino else "shared"


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
