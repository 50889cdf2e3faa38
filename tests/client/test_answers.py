"""The client's answers against the service's response models: what the client requires, the service always sends."""

from __future__ import annotations

import pytest
from pydantic import AliasChoices, BaseModel

from api import enrich_schemas, model_schemas, schemas
from enrichment_client import answers
from tasks import (
    bounding_box,
    depth_estimator,
    person_reid,
    pet_classifier,
    pose_estimator,
    similarity,
    threat_detector,
)

PAIRS: list[tuple[type[BaseModel], type[BaseModel]]] = [
    (answers.Box, bounding_box.BoundingBox),
    (answers.Keypoint, pose_estimator.Keypoint),
    (answers.PersonSeen, pose_estimator.Person),
    (answers.AlertDetail, pose_estimator.AlertDetail),
    (answers.Pose, pose_estimator.PoseResponse),
    (answers.Threat, threat_detector.Threat),
    (answers.Threats, threat_detector.ThreatResponse),
    (answers.Reid, person_reid.ReidResponse),
    (answers.Pet, pet_classifier.PetResponse),
    (answers.Depth, depth_estimator.DepthResponse),
    (answers.Depth, depth_estimator.SceneResponse),
    (answers.Distance, depth_estimator.DistanceResponse),
    (answers.BoxDepth, depth_estimator.BoxDepth),
    (answers.Comparison, similarity.CompareResponse),
    (answers.Matches, similarity.MatchResponse),
    (answers.Match, similarity.Match),
    (answers.Problem, enrich_schemas.EnrichError),
    (answers.BoxAnswer, enrich_schemas.BoxAnswer),
    (answers.Enrichment, enrich_schemas.EnrichResponse),
    (answers.Health, schemas.HealthResponse),
    (answers.ModelState, schemas.ModelHealth),
    (answers.Model, model_schemas.ModelResponse),
    (answers.ModelChange, schemas.ModelChangedResponse),
]


@pytest.mark.parametrize(("client", "service"), PAIRS, ids=lambda model: model.__name__)
def test_what_the_client_requires_is_always_sent(client: type[BaseModel], service: type[BaseModel]) -> None:
    sent = {field.alias or name for name, field in service.model_fields.items() if field.is_required()}
    for name, field in client.model_fields.items():
        if field.is_required():
            names = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else [name]
            assert sent & set(names), name
