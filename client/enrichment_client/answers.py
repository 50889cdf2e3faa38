"""The answers as typed objects. Fields that a newer service adds are kept; coordinates are pixels of the picture."""

from __future__ import annotations

import base64
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Box(_Answer):
    """Upper left corner and size."""

    x: float
    y: float
    width: float
    height: float


class Keypoint(_Answer):
    """A joint, by its COCO name."""

    name: str
    x: float
    y: float
    confidence: float


class AlertDetail(_Answer):
    """Why an alert was given."""

    alert: str
    reason: str
    confidence: float | None = None


class PersonSeen(_Answer):
    """One person. alerts: what in the posture is worth a look. alert_details: why, from services that say so."""

    keypoints: list[Keypoint]
    posture: str
    alerts: list[str]
    bbox: Box
    confidence: float
    alert_details: list[AlertDetail] = []


class _Result(_Answer):
    """What every model's answer shares. untrained: random stand-in weights answered, in a trial only."""

    inference_time_ms: float = 0.0
    untrained: bool | None = None


class Pose(_Result):
    """/pose-analyze. The first three describe the most prominent person, `persons` everybody."""

    keypoints: list[Keypoint]
    posture: str
    alerts: list[str]
    num_people: int = 0
    persons: list[PersonSeen] = []


class Threat(_Answer):
    """One threat. class_name: as the checkpoint calls it. severity: `critical`, `high` or `medium`."""

    class_name: str = Field(validation_alias=AliasChoices("class_name", "class"))
    confidence: float
    bbox: Box
    severity: str | None = None


class Threats(_Result):
    """/threat-detect."""

    threats_detected: list[Threat]
    is_threat: bool
    max_confidence: float


class Reid(_Result):
    """/person-reid. embedding: L2-normalised. model_id: the weights; embeddings of two ids are never compared."""

    embedding: list[float]
    model_id: str | None = None


class Pet(_Result):
    """/pet-classify. is_household_pet: an animal beyond doubt, and no person in view."""

    pet_type: str
    breed: str
    confidence: float
    is_household_pet: bool
    cat_score: float | None = None
    dog_score: float | None = None
    person_in_view: bool | None = None


class Depth(_Result):
    """/depth-estimate, relative within the scene: 0 is far, 1 is near."""

    min_depth: float
    max_depth: float
    mean_depth: float
    depth_map_base64: str | None = None

    @property
    def depth_map(self) -> bytes | None:
        """The map as a file: an 8-bit grey PNG, bright is near. None if it was not asked for."""
        return None if self.depth_map_base64 is None else base64.b64decode(self.depth_map_base64)


class Distance(_Result):
    """/object-distance. relative_depth: 0 is the nearest point of the scene, 1 the farthest. metres: if calibrated."""

    estimated_distance_m: float | None
    relative_depth: float
    proximity_label: str


class BoxDepth(_Answer):
    """How near the object in a box is. median: 1 is the nearest point of the scene."""

    median: float
    nearness: str


class Problem(_Answer):
    """Why one model did not answer."""

    code: str
    message: str


class Size(_Answer):
    """Pixels of the upright picture."""

    width: int
    height: int


class _Found(_Answer):
    pose_estimator: Pose | None = None
    threat_detector: Threats | None = None
    person_reid: Reid | None = None
    pet_classifier: Pet | None = None


class FrameResults(_Found):
    """The models' answers about the whole picture; None where a model was not asked, or failed."""

    depth_estimator: Depth | None = None


class BoxResults(_Found):
    """The models' answers about a box."""

    depth_estimator: BoxDepth | None = None


class BoxAnswer(_Answer):
    """One box of the request, by its id. bbox: None if the service could not read it. errors: by model."""

    id: str
    bbox: Box | None = None
    results: BoxResults
    errors: dict[str, Problem] = {}


class Enrichment(_Answer):
    """/enrich: all models about one picture. errors: by model. untrained: models with random stand-in weights."""

    image: Size
    results: FrameResults
    boxes: list[BoxAnswer] = []
    errors: dict[str, Problem] = {}
    timings: dict[str, Any] = {}
    inference_time_ms: float = 0.0
    untrained: list[str] | None = None


class Comparison(_Answer):
    """/person-reid/compare. cosine: of the two embeddings, -1…1; from `threshold` on it is the same person."""

    cosine: float
    same_person: bool
    threshold: float
    model_id: str | None = None


class Match(_Answer):
    """A candidate that may be the same person, by its id."""

    id: str
    cosine: float


class Matches(_Answer):
    """/person-reid/match: the candidates from the threshold on, best first. best: the best one in any case."""

    matches: list[Match]
    threshold: float
    model_id: str | None = None
    best: Match | None = None


class ModelState(_Answer):
    """What /health says of a model. detail: why it can't serve."""

    state: str
    engine: str | None = None
    precision: str | None = None
    weights: str | None = None
    detail: str | None = None


class Health(_Answer):
    """/health. models: by long name the state, by short name whether it is loaded."""

    status: Literal["healthy", "degraded", "unhealthy"]
    models_loaded: dict[str, bool] = {}
    models: dict[str, ModelState | bool] = {}
    gpu_available: bool = False
    gpu_memory_used_gb: float = 0.0
    uptime_seconds: float = 0.0


class Model(_Answer):
    """What is known of a model."""

    name: str
    state: str
    detail: str | None = None
    engine: str | None = None
    precision: str | None = None
    memory_mb: int | None = None
    loads: int = 0
    last_used: str | None = None


class Models(_Answer):
    """/models."""

    models: list[Model]


class ModelChange(_Answer):
    """A model after it was loaded or has left."""

    name: str
    loaded: bool
    state: str
