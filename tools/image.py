"""Build the image ai-enrichment-light:<version>[-cpu]. What `make image` does.

usage: python -m tools.image [--variant cpu|gpu] [--tag TAG]

`bentoml build` packs the code and whatever models are in the store, `bentoml containerize` makes an image of it, and
deploy/slim.Dockerfile takes out of that what only its making needs. Needs docker.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).parents[1]
NAME: Final = "ai-enrichment-light"
# The GPU's image brings torch with its CUDA; on a CPU nothing of torch is needed.
REQUIREMENTS: Final = {"cpu": "requirements/serve.txt", "gpu": "requirements/gpu.txt"}


def main() -> None:
    """Build, and print the image's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=REQUIREMENTS, default="gpu")
    parser.add_argument("--tag", help="of the image; default: the version, with -cpu for that variant")
    arguments = parser.parse_args()
    image = f"{NAME}:{arguments.tag or default_tag(arguments.variant)}"
    full = f"{image}-full"
    bento = build(arguments.variant)
    run("bentoml", "containerize", bento, "-t", full, "--opt", "progress=plain")
    run("docker", "build", "--build-arg", f"FULL={full}", "-t", image, "-f", "deploy/slim.Dockerfile", "deploy")
    run("docker", "rmi", full)
    print(image)


def default_tag(variant: str) -> str:
    """The version of pyproject.toml; `-cpu` behind it where the image is for a CPU."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['version']}{'-cpu' if variant == 'cpu' else ''}"


def build(variant: str) -> str:
    """`bentoml build` by bentofile.yaml with the variant's requirements; returns the bento's tag."""
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    bentofile["python"]["requirements_txt"] = REQUIREMENTS[variant]
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "bentofile.yaml"
        changed.write_text(yaml.safe_dump(bentofile), encoding="utf-8")
        return (
            run("bentoml", "build", "-f", str(changed), "--output", "tag", read=True).strip().removeprefix("__tag__:")
        )


def run(*command: str, read: bool = False) -> str:
    """Run a command in the checkout; its output is shown, or returned with `read`. Ends the program where it fails."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE if read else None, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed with {done.returncode}")
    return done.stdout or ""


if __name__ == "__main__":
    main()
