"""Every call of the service, described once: its route, what is sent, and the type of its answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar, Union
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from enrichment_client import answers
from enrichment_client.errors import EnrichmentError
from enrichment_client.images import Bbox, Image, box, encoded

ResultT = TypeVar("ResultT")
AnswerT = TypeVar("AnswerT", bound=BaseModel)

#: Short model name → the variable that assigns it to the light or the heavy service.
ASSIGNMENTS: Final[Mapping[str, str]] = {
    "pose": "ENRICHMENT_POSE_SERVICE",
    "threat": "ENRICHMENT_THREAT_SERVICE",
    "reid": "ENRICHMENT_REID_SERVICE",
    "pet": "ENRICHMENT_PET_SERVICE",
    "depth": "ENRICHMENT_DEPTH_SERVICE",
}


class Region(TypedDict, total=False):
    """A box of /enrich. id: names it in the answer, by default its position. models: if not all."""

    id: str
    bbox: Bbox
    models: Sequence[str]


class Candidate(TypedDict):
    """Somebody known: an embedding, and the weights that made it."""

    id: str
    embedding: Sequence[float]
    model_id: str


#: Somebody to compare: a picture, a picture and a box in it, or the answer of `reid`.
Person = Union[Image, "tuple[Image, Bbox]", answers.Reid]


@dataclass(frozen=True)
class Call(Generic[ResultT]):
    """A request and how its answer is read.

    model: the short name by which light or heavy is chosen, None for the light service. statuses: of an
    answer. repeatable: whether asking twice does no harm.
    """

    path: str
    read: Callable[[httpx.Response], ResultT]
    model: str | None = None
    method: Literal["GET", "POST"] = "POST"
    image: bytes | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    accept: str = "application/json"
    statuses: frozenset[int] = frozenset({200})
    repeatable: bool = True

    def request(self, url: str) -> httpx.Request:
        """Build the request to the service at a URL. A picture goes as a file, which spares base64's third."""
        headers = {"Accept": self.accept}
        if self.image is not None:
            files = {"image": ("image", self.image)}
            return httpx.Request(self.method, f"{url}{self.path}", headers=headers, data=self.fields, files=files)
        return httpx.Request(self.method, f"{url}{self.path}", headers=headers, json=self.body)


def pose(
    image: Image,
    *,
    bbox: Bbox | None = None,
    min_confidence: float | None = None,
    min_keypoint_confidence: float | None = None,
) -> Call[answers.Pose]:
    """Find people, with joints, postures and alerts."""
    options = {"min_confidence": min_confidence, "min_keypoint_confidence": min_keypoint_confidence}
    return _analysis("/pose-analyze", "pose", answers.Pose, image, bbox, options)


def threat(image: Image, *, bbox: Bbox | None = None, min_confidence: float | None = None) -> Call[answers.Threats]:
    """Find weapons, each with a severity."""
    return _analysis("/threat-detect", "threat", answers.Threats, image, bbox, {"min_confidence": min_confidence})


def reid(image: Image, *, bbox: Bbox | None = None) -> Call[answers.Reid]:
    """Embed one person, for comparison by cosine."""
    return _analysis("/person-reid", "reid", answers.Reid, image, bbox)


def pet(image: Image, *, bbox: Bbox | None = None) -> Call[answers.Pet]:
    """Tell a cat from a dog, and whether it is surely a household pet."""
    return _analysis("/pet-classify", "pet", answers.Pet, image, bbox)


def depth(image: Image, *, bbox: Bbox | None = None) -> Call[answers.Depth]:
    """Map how near things are."""
    return _analysis("/depth-estimate", "depth", answers.Depth, image, bbox)


def distance(
    image: Image,
    bbox: Bbox,
    *,
    method: Literal["center", "mean", "median", "min"] | None = None,
    near_m: float | None = None,
    far_m: float | None = None,
) -> Call[answers.Distance]:
    """Tell how far away the object in a box is. near_m, far_m: metres to the scene's nearest and farthest point."""
    options = {"method": method, "near_m": near_m, "far_m": far_m}
    return _analysis("/object-distance", "depth", answers.Distance, image, bbox, options)


def enrich(
    image: Image,
    *,
    models: Sequence[str] | None = None,
    bbox: Bbox | None = None,
    boxes: Sequence[Region | Bbox] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Call[answers.Enrichment]:
    """Ask several models about one picture, and about boxes in it, in one request.

    models: short or long names; default: all that can serve. options: by model, such as
    `{"pose": {"min_confidence": 0.4}}`.
    """
    return Call(
        "/enrich", _reader(answers.Enrichment), image=encoded(image), fields=_asked(models, bbox, boxes, options)
    )


def overlay(
    image: Image,
    *,
    models: Sequence[str] | None = None,
    bbox: Bbox | None = None,
    boxes: Sequence[Region | Bbox] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Call[bytes]:
    """Ask as `enrich` does, for the annotated picture: the bytes of a JPEG."""
    fields = _asked(models, bbox, boxes, options)
    return Call("/enrich?render=overlay", _picture, image=encoded(image), fields=fields, accept="image/jpeg")


def compare(first: Person, second: Person, *, threshold: float | None = None) -> Call[answers.Comparison]:
    """Tell whether two pictures or embeddings show the same person.

    threshold: the cosine from which they do, by default the service's.
    """
    body = _set({"first": _person(first), "second": _person(second), "threshold": threshold})
    return Call("/person-reid/compare", _reader(answers.Comparison), "reid", body=body)


def match(
    query: Person, candidates: Sequence[Candidate], *, threshold: float | None = None, top: int | None = None
) -> Call[answers.Matches]:
    """Find the candidates who may be the person of a picture or embedding, best first.

    threshold: the cosine from which they are, by default the service's. top: the most matches to list.
    """
    known = [dict(candidate) for candidate in candidates]
    body = _set({"query": _person(query), "candidates": known, "threshold": threshold, "top": top})
    return Call("/person-reid/match", _reader(answers.Matches), "reid", body=body)


def health() -> Call[answers.Health]:
    """Tell the state of the service and of each model. A service that can't serve answers, too: `unhealthy`."""
    return Call("/health", _reader(answers.Health), method="GET", statuses=frozenset({200, 503}))


def models() -> Call[answers.Models]:
    """List what is known of each model."""
    return Call("/models", _reader(answers.Models), method="GET")


def preload(model: str) -> Call[answers.ModelChange]:
    """Load a model. The service has to allow it (ENRICHMENT_MODEL_MANAGEMENT)."""
    path = f"/models/preload?model_name={quote(model, safe='')}"
    return Call(path, _reader(answers.ModelChange), repeatable=False)


def unload(model: str) -> Call[answers.ModelChange]:
    """Unload a model. The service has to allow it (ENRICHMENT_MODEL_MANAGEMENT)."""
    return Call(f"/models/{quote(model, safe='')}/unload", _reader(answers.ModelChange), repeatable=False)


def _analysis(
    path: str,
    model: str,
    result: type[AnswerT],
    image: Image,
    bbox: Bbox | None,
    options: Mapping[str, float | str | None] | None = None,
) -> Call[AnswerT]:
    fields = {name: str(value) for name, value in _set(options or {}).items()}
    if bbox is not None:
        fields["bbox"] = json.dumps(box(bbox))
    return Call(path, _reader(result), model, image=encoded(image), fields=fields)


def _asked(
    names: Sequence[str] | None,
    bbox: Bbox | None,
    boxes: Sequence[Region | Bbox] | None,
    options: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, str]:
    asked = {
        "models": [names] if isinstance(names, str) else names,
        "bbox": None if bbox is None else box(bbox),
        "boxes": None if boxes is None else [_region(one) for one in boxes],
        "options": options,
    }
    return {name: json.dumps(value) for name, value in _set(asked).items()}


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _region(region: Any) -> Any:
    if isinstance(region, Mapping) and "bbox" in region:
        return {**region, "bbox": box(region["bbox"])}
    return box(region)


def _person(person: Person) -> dict[str, Any]:
    if isinstance(person, answers.Reid):
        return {"embedding": person.embedding, "model_id": person.model_id}
    image, bbox = person if isinstance(person, tuple) else (person, None)
    sent: dict[str, Any] = {"image_base64": base64.b64encode(encoded(image)).decode("ascii")}
    return sent if bbox is None else {**sent, "bbox": box(bbox)}


def _reader(result: type[AnswerT]) -> Callable[[httpx.Response], AnswerT]:
    def read(response: httpx.Response) -> AnswerT:
        try:
            return result.model_validate_json(response.content)
        except ValidationError as error:
            if response.status_code != 200:
                raise EnrichmentError.of(response) from None
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise _unexpected(response, f"{where}: {first['msg']}") from None

    return read


def _picture(response: httpx.Response) -> bytes:
    kind = response.headers.get("content-type", "")
    if not kind.startswith("image/"):
        raise _unexpected(response, f"a picture was expected, {kind or 'nothing'} came")
    return response.content


def _unexpected(response: httpx.Response, what: str) -> EnrichmentError:
    message = f"the answer of {response.url} is not this service's: {what}"
    return EnrichmentError(response.status_code, "unexpected_answer", message, response.headers.get("x-request-id"))
