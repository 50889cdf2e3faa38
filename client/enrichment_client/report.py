"""Puts answers into words, for the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from enrichment_client.answers import (
    Box,
    BoxDepth,
    BoxResults,
    Depth,
    Enrichment,
    FrameResults,
    Health,
    ModelState,
    PersonSeen,
    Pet,
    Pose,
    Problem,
    Threats,
)


def of_picture(name: str, answer: Enrichment) -> str:
    """Return what the models saw in a picture, in lines."""
    lines = [f"{name}: {answer.image.width} × {answer.image.height}, {answer.inference_time_ms:.0f} ms"]
    lines += _indented(_seen(answer.results))
    for box in answer.boxes:
        lines.append(f"  box {box.id}{f', {_place(box.bbox)}' if box.bbox else ''}")
        lines += _indented(_seen(box.results), 4)
        own = {model: error for model, error in box.errors.items() if error != answer.errors.get(model)}
        lines += _indented(_failed(own), 4)
    lines += _indented(_failed(answer.errors))
    if answer.untrained:
        lines.append(f"  these answers mean nothing, as the weights are untrained: {', '.join(answer.untrained)}")
    return "\n".join(lines)


def of_service(url: str, health: Health) -> str:
    """Return the state of the service and of each model, in lines; without its API key, the former alone."""
    if "models" not in health.model_fields_set:
        return f"{url}: {health.status}. It tells more to callers with its API key: --api-key or ENRICHMENT_API_KEY"
    lines = [f"{url}: {health.status}, up for {_duration(health.uptime_seconds)}"]
    if health.gpu_available:
        lines.append(f"  GPU memory in use: {health.gpu_memory_used_gb:.2f} GB")
    for name, model in health.models.items():
        if isinstance(model, ModelState):
            parts = [model.state, model.engine, model.precision, model.weights, model.detail]
            lines.append(f"  {name:16} {', '.join(part for part in parts if part)}")
    return "\n".join(lines)


def _seen(results: FrameResults | BoxResults) -> Iterator[str]:
    if results.pose_estimator:
        yield from _people(results.pose_estimator)
    if results.threat_detector:
        yield from _threats(results.threat_detector)
    if results.pet_classifier:
        yield f"pet: {_pet(results.pet_classifier)}"
    match results.depth_estimator:
        case Depth(min_depth=least, max_depth=most, mean_depth=mean):
            yield f"depth: {least:.2f} to {most:.2f}, mean {mean:.2f} (1 is nearest)"
        case BoxDepth(nearness=nearness, median=median):
            yield f"distance: {nearness} ({median:.2f}, 1 is nearest)"
    if reid := results.person_reid:
        yield f"re-id: {len(reid.embedding)} numbers of {reid.model_id or 'unknown weights'}"


def _failed(errors: Mapping[str, Problem]) -> Iterator[str]:
    for model, error in errors.items():
        yield f"{model} failed: {error.message} ({error.code})"


def _people(pose: Pose) -> Iterator[str]:
    yield f"people: {len(pose.persons) or 'none'}"
    for person in pose.persons:
        posture = person.posture.replace("_", " ")
        yield f"  {posture} ({person.confidence:.0%}) at {_place(person.bbox)}{_alerts(person)}"


def _alerts(person: PersonSeen) -> str:
    reasons = {detail.alert: detail.reason for detail in person.alert_details}
    told = (f"{alert} ({reasons[alert]})" if alert in reasons else alert for alert in person.alerts)
    return f"; ALERT: {', '.join(told).replace('_', ' ')}" if person.alerts else ""


def _threats(threats: Threats) -> Iterator[str]:
    yield f"threats: {len(threats.threats_detected) or 'none'}"
    for threat in threats.threats_detected:
        yield f"  {threat.class_name}, {threat.severity} ({threat.confidence:.0%}) at {_place(threat.bbox)}"


def _pet(pet: Pet) -> str:
    if pet.is_household_pet:
        return f"{pet.pet_type} ({pet.confidence:.0%})"
    why = "; a person is in view" if pet.person_in_view else ""
    return f"none for sure (rather {pet.pet_type}, {pet.confidence:.0%}{why})"


def _place(box: Box) -> str:
    return f"{box.x:.0f},{box.y:.0f},{box.x + box.width:.0f},{box.y + box.height:.0f}"


def _indented(lines: Iterator[str], spaces: int = 2) -> list[str]:
    return [f"{' ' * spaces}{line}" for line in lines]


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
