"""How much accuracy does reduced precision cost, compared with f32 on a folder of images?

usage: python -m benchmarks.precision FOLDER [NAME …] [--engine openvino|torch] [--precision bf16|auto|int8]

FOLDER has pictures, and in `reid/` crops of people; re-identification uses only those. int8 needs models that were
imported with --calibrate. Prints the Markdown table of docs/operate/tuning.md; figures beyond a bound are bold. The
figures hold only for this processor.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from models.catalogue import CATALOGUE, ModelName
from models.store import require
from runners.engine_choice import load, take_gpu
from settings import EngineChoice, Settings, get_settings
from tasks import TASKS
from tasks.agreement import loss
from tasks.pipeline import Pipeline, read


def pipeline(name: ModelName, engine: EngineChoice, precision: str) -> Pipeline:
    """A model on one engine. precision: one of settings.Precision, or int8."""
    chosen = {"int8": (name,)} if precision == "int8" else {"int8": (), "precision": precision}
    settings: Settings = get_settings().model_copy(update={"engine": engine, **chosen})
    stored = require(name)
    return Pipeline(TASKS[name](settings.models[name]), stored.card, load(stored, settings, take_gpu(settings)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*CATALOGUE, []])
    parser.add_argument("--engine", choices=["openvino", "torch"], default="openvino")
    parser.add_argument("--precision", choices=["bf16", "auto", "int8"], default="bf16")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix in {".jpg", ".png", ".webp"})
    pictures = {path: read(path) for path in paths}
    print(f"| model | pictures | {arguments.precision} against f32, {arguments.engine} |\n|---|---|---|")
    for name in (name for name in CATALOGUE if not arguments.names or name in arguments.names):
        images = [image for path, image in pictures.items() if name != "person_reid" or path.parent.name == "reid"]
        exact, reduced = (
            pipeline(name, arguments.engine, precision).run(images) for precision in ("f32", arguments.precision)
        )
        cost = loss(len(images), TASKS[name].agreement(exact, reduced))
        print(f"| {name} | {cost.pictures} | {cost} |", flush=True)


if __name__ == "__main__":
    main()
