"""The part that the loaders of the two transformers models share: folders, processors and normalisation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedModel

from importing.errors import WeightsRefused
from importing.loaders.network import Normalise, refusing

PROCESSOR: Final = "preprocessor_config.json"
CHANNELS: Final = 3
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, for the processors of stand-ins


def load_pretrained(kind: type[PreTrainedModel], model_type: str, folder: Path) -> Any:
    """Load a transformers folder (config.json, model.safetensors) offline, in float32 and evaluation mode.

    Raises WeightsRefused if the folder has another architecture, or a parameter is missing, foreign or of another
    shape. transformers itself would only warn and continue with random numbers.
    """
    config = read_json(folder / "config.json")
    if (found := config.get("model_type")) != model_type:
        raise WeightsRefused(f"config.json is of the model type {found!r}; {model_type!r} is needed")
    if (channels := config.get("num_channels", CHANNELS)) != CHANNELS:
        raise WeightsRefused(f"config.json has {channels} num_channels; {CHANNELS} (RGB) are needed")
    with refusing(folder, f"a transformers folder of {kind.__name__}"):
        # output_loading_info makes the result a pair, which the library's annotations don't say.
        loaded: Any = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype="float32",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported in place of raised, and refused below
        )
    model, report = loaded
    wrong = {key: sorted(map(str, keys)) for key, keys in report.items() if keys}
    if wrong:
        counts = ", ".join(f"{len(keys)} {key.replace('_', ' ')} (such as {keys[0]})" for key, keys in wrong.items())
        raise WeightsRefused(f"model.safetensors is not a whole {kind.__name__}: {counts}")
    model.eval()
    return model


def load_processor(kinds: Mapping[str, Any], default: str, folder: Path) -> Any:
    """Load the image processor of a transformers folder offline.

    kinds: accepted name → class. default: the name that transformers assumes if the folder has none. Raises
    WeightsRefused for any other processor.
    """
    settings = read_json(folder / PROCESSOR)
    named = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or default)
    name = named.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if name not in kinds:
        raise WeightsRefused(f"{PROCESSOR} is of a {named}; {' or '.join(kinds)} is needed")
    with refusing(folder, f"a folder with the settings of a {name}"):
        processor: Any = kinds[name].from_pretrained(folder, local_files_only=True)
        int(processor.resample)
    for step in ("do_center_crop", "do_pad"):
        if getattr(processor, step, None):
            raise WeightsRefused(f"{PROCESSOR} has {step}, which is not served: false is needed")
    return processor


def normalise_of(processor: Any) -> Normalise:
    """Return a processor's normalisation. Raises WeightsRefused for a wrong rescale_factor, mean or std."""
    factor = processor.rescale_factor if processor.do_rescale else 1
    if not isinstance(factor, int | float) or factor <= 0:
        raise WeightsRefused(f"{PROCESSOR} has the rescale_factor {factor}; a number above 0 is needed, such as 1/255")
    mean, std = _each(processor, "image_mean", 0.0), _each(processor, "image_std", 1.0)
    if min(std) <= 0:
        raise WeightsRefused(f"{PROCESSOR} has the image_std {std}; numbers above 0 are needed")
    return Normalise(tuple(value / (factor * 255) for value in mean), tuple(value / (factor * 255) for value in std))


def _each(processor: Any, setting: str, unused: float) -> tuple[float, ...]:
    """Return a setting's number for each channel. unused: the number if the processor does not normalise."""
    found = getattr(processor, setting) if processor.do_normalize else unused
    numbers = tuple(found) if isinstance(found, list | tuple) else (found,) * CHANNELS
    if len(numbers) != CHANNELS or not all(isinstance(number, int | float) for number in numbers):
        raise WeightsRefused(f"{PROCESSOR} has the {setting} {found}; {CHANNELS} numbers are needed")
    return numbers


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises WeightsRefused if the file holds none."""
    with refusing(file, "a JSON object"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"its top level is a {type(content).__name__}")
    return content
