"""The task of Depth Anything V2 Small: the relative depth of a scene, as a map or as one object's distance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, Literal, TypeAlias

import numpy as np
import pybase64
from PIL import Image
from pydantic import BaseModel, Field, PrivateAttr

from engines.batches import Outputs
from models.card import ModelCard, ModelInput
from models.catalogue import ModelName
from tasks.agreement import Figure
from tasks.distance import DistanceOptions, Nearness, Proximity, measure
from tasks.picture import Frame, Picture, area_of
from tasks.task import Answer, FileAnswer, Item, Options, Prepared, Result, SceneOptions, Task, TaskSettings
from vision import depth_map
from vision.arrays import F32, Box
from vision.errors import BoxOutside
from vision.image import resize

PATCH: Final = 14  # pixels, side of DINOv2's patches
# Width : height of the five input shapes. All have about the area, and so the cost, of the square one. An image is
# stretched to the nearest shape, and the map is stretched back. The official processor keeps the aspect ratio at a
# height of 518 instead. A 16:9 frame then has 1.8 times the square's pixels, and every camera adds a shape.
ASPECT_RATIOS: Final = (16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16)
_MEDIAN: Final = DistanceOptions("median", None)

_MEDIA_TYPES: Final[Mapping[depth_map.Format, str]] = MappingProxyType(
    {"png8": "image/png", "png16": "image/png", "npy": "application/x-npy"}
)


class DepthSettings(TaskSettings):
    """input_size: side of the square input in pixels."""

    input_size: int = Field(ge=14, le=1036, multiple_of=14)


class DepthResult(Result):
    """depth: (h, w) float32 in the network's resolution, normalised to 0…1 over the whole image; 1 is nearest."""

    depth: F32


class DepthResponse(Answer):
    """depth_map_base64: 8-bit grey PNG, bright is near. min, max and mean: of the requested region, 0…1."""

    depth_map_base64: str
    min_depth: float
    max_depth: float
    mean_depth: float


class BoxDepth(BaseModel):
    """The depth of a box in its scene. median: 0…1, 1 is the scene's nearest point."""

    median: float
    nearness: Nearness


class SceneResponse(Answer):
    """The depth of a whole scene. min, max and mean: 0…1, of the network's map. depth_map_base64: if asked for."""

    depth_map_base64: str | None = None
    min_depth: float
    max_depth: float
    mean_depth: float
    _boxes: list[BoxDepth | None] = PrivateAttr(default_factory=list)

    @property
    def of_boxes(self) -> Sequence[BoxDepth | None]:
        """See Answer.of_boxes."""
        return self._boxes


class DistanceResponse(Answer):
    """relative_depth: 0 at the scene's nearest point, 1 at its farthest. Metres need the caller's calibration."""

    estimated_distance_m: float | None
    relative_depth: float
    proximity_label: Proximity


def input_shape(width: int, height: int, size: int) -> tuple[int, int]:
    """Return height and width of the network's input for an image of width × height pixels; multiples of 14.

    size: side of the square input (setting `input_size`). 518 gives 392 × 686 for 16:9 and 448 × 602 for 4:3.
    """
    ratio = min(ASPECT_RATIOS, key=lambda ratio: abs(math.log(width / height / ratio)))
    patches = size / PATCH
    rows, columns = round(patches / math.sqrt(ratio)), round(patches * math.sqrt(ratio))
    return max(1, rows) * PATCH, max(1, columns) * PATCH


DepthAnswer: TypeAlias = DepthResponse | DistanceResponse | SceneResponse | FileAnswer


class DepthEstimator(Task[DepthSettings, Frame, DepthResult, DepthAnswer]):
    """See Task."""

    name: ClassVar[ModelName] = "depth_estimator"
    sees: ClassVar[Literal["frame", "box", "scene"]] = "scene"
    response: ClassVar[type[BaseModel]] = DepthResponse
    frame_response: ClassVar[type[BaseModel]] = SceneResponse
    box_response: ClassVar[type[BaseModel]] = BoxDepth
    option_names: ClassVar[tuple[str, ...]] = ("map",)

    def prepare(
        self,
        picture: Picture,
        options: Options,
        model_input: ModelInput | None = None,  # noqa: ARG002 - the network takes any multiple of its patch
    ) -> Prepared[Frame]:
        """Resize the whole image to the network's input, bicubic and antialiased like the official processor."""
        height, width = input_shape(picture.whole.shape[1], picture.whole.shape[0], self.settings.input_size)
        image = resize(picture.whole, width, height, Image.Resampling.BICUBIC)
        size = depth_map.answer_bytes(picture.frame.area, options.depth_file)
        return Prepared([{"image": image}], picture.frame, options, size)

    # Runs beside the engine.

    def warm_up_sizes(self, model_input: ModelInput) -> Sequence[tuple[int, int]]:  # noqa: ARG002 - as above
        """See Task.warm_up_sizes."""
        shapes = [input_shape(round(ratio * 1000), 1000, self.settings.input_size) for ratio in ASPECT_RATIOS]
        return sorted(shapes, key=math.prod, reverse=True)

    def interpret(self, outputs: Outputs, item: Item, card: ModelCard) -> DepthResult:  # noqa: ARG002
        """See Task.interpret. outputs: `depth` (h, w) float32, relative inverse depth without a fixed range."""
        return {"depth": depth_map.normalise(outputs[0])}

    # Runs in the API process.

    def answer(self, results: Sequence[DepthResult], prepared: Prepared[Frame]) -> DepthAnswer:
        """Return a depth map, in JSON or as a file; or the distance of the object in the box; or a scene with boxes."""
        (result,) = results
        frame, distance, form = prepared.view, prepared.options.distance, prepared.options.depth_file
        if prepared.options.scene is not None:
            return _scene(result["depth"], frame, prepared.options.scene)
        if form is not None:
            data = depth_map.as_file(result["depth"], frame.size, frame.area, form)
            return FileAnswer(data=data, media_type=_MEDIA_TYPES[form.format])
        if distance is None:
            rendered = depth_map.rendered(result["depth"], frame.size, frame.area)
            return DepthResponse(
                depth_map_base64=pybase64.b64encode_as_string(rendered.png),
                min_depth=round(rendered.low, 4),
                max_depth=round(rendered.high, 4),
                mean_depth=round(rendered.mean, 4),
            )
        found = measure(depth_map.sampled(result["depth"], frame.size, frame.area), distance)
        return DistanceResponse(
            estimated_distance_m=None if found.metres is None else round(found.metres, 2),
            relative_depth=round(found.relative_depth, 4),
            proximity_label=found.proximity,
        )

    # Compares engines and precisions.

    @staticmethod
    def agreement(
        reference: Sequence[tuple[DepthResult, DepthAnswer]], other: Sequence[tuple[DepthResult, DepthAnswer]]
    ) -> Mapping[str, Figure]:
        """Compare the maps, in the network's resolution."""
        pairs = [(one["depth"], two["depth"]) for (one, _), (two, _) in zip(reference, other, strict=True)]
        correlations = [float(np.corrcoef(one.ravel(), two.ravel())[0, 1]) for one, two in pairs]
        return {
            "correlation min": Figure(min(correlations), at_least=0.995),
            "depth ±": Figure(max(float(np.abs(one - two).max()) for one, two in pairs)),
        }


def _scene(depth: F32, frame: Frame, asked: SceneOptions) -> SceneResponse:
    scene = SceneResponse(
        min_depth=round(float(depth.min()), 4),
        max_depth=round(float(depth.max()), 4),
        mean_depth=round(float(depth.mean(dtype=np.float64)), 4),
    )
    if asked.wants_map:
        png = depth_map.rendered(depth, frame.size, (0, 0, *frame.size)).png
        scene.depth_map_base64 = pybase64.b64encode_as_string(png)
    scene._boxes = [_of_box(depth, frame.size, box) for box in asked.boxes]
    return scene


def _of_box(depth: F32, size: tuple[int, int], box: Box) -> BoxDepth | None:
    try:
        area = area_of(box, *size)
    except BoxOutside:
        return None
    found = measure(depth_map.sampled(depth, size, area), _MEDIAN)
    return BoxDepth(median=round(1 - found.relative_depth, 4), nearness=found.nearness)
