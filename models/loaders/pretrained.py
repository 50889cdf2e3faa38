from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from models.errors import WeightsRefused
from models.loaders.network import refusing


def load_pretrained(kind: type[PreTrainedModel], model_type: str, folder: Path) -> Any:
    """Load a transformers folder (config.json, model.safetensors) offline, as float32, in evaluation mode.

    Raises WeightsRefused where the folder is of another architecture, or a parameter is missing, foreign or of another
    shape: transformers itself only warns and goes on with random numbers.
    """
    found = read_json(folder / "config.json").get("model_type")
    if found != model_type:
        raise WeightsRefused(f"config.json is of the model type {found!r}; {model_type!r} is needed")
    with refusing(folder, f"a transformers folder of {kind.__name__}"):
        # Its annotations know nothing of output_loading_info, which makes the result a pair.
        loaded: Any = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype="float32", output_loading_info=True
        )
    model, report = loaded
    wrong = {key: sorted(map(str, keys)) for key, keys in report.items() if keys}
    if wrong:
        counts = ", ".join(f"{len(keys)} {key.replace('_', ' ')} (such as {keys[0]})" for key, keys in wrong.items())
        raise WeightsRefused(f"model.safetensors is not a whole {kind.__name__}: {counts}")
    model.eval()
    return model


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises WeightsRefused where it is none."""
    with refusing(file, "a JSON object"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"its top level is a {type(content).__name__}")
    return content
