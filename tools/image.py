"""Builds the image ai-enrichment-light:<version>[-cpu], for `make image`.

usage: python -m tools.image [--variant cpu|gpu] [--weights packed|mounted] [--extra PACKAGES] [--tag TAG]
       python -m tools.image [--variant cpu|gpu] [--weights packed|mounted] --bento FILE.tar

`bentoml build` packs the code, `bentoml containerize` makes an image of it, and the Dockerfile's last stage removes the
build tools. Needs docker. Packed weights come from the store. Mounted weights are imported at the start
(ENRICHMENT_IMPORT_AT_START); the CPU image can't do that, because it has no torch. With --bento the bento is written
with its models to an archive, and no image is made: the Dockerfile does this where there is no environment outside.
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

from models import store
from models.catalogue import CATALOGUE

ROOT: Final = Path(__file__).parents[1]
NAME: Final = "ai-enrichment-light"
# The GPU image has torch with its CUDA; the CPU image needs no torch.
REQUIREMENTS: Final = {"cpu": "requirements/serve.txt", "gpu": "requirements/gpu.txt"}


def main() -> None:
    """Build, and print the image's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=REQUIREMENTS, default="gpu")
    parser.add_argument("--weights", choices=("packed", "mounted"), help="default: packed on a CPU, else mounted")
    parser.add_argument("--extra", default="", help="packages to install beside the locked ones, as for pip")
    parser.add_argument("--tag", help="of the image; default: the version, with -cpu for that variant")
    parser.add_argument("--bento", metavar="FILE.tar", type=Path, help="write the bento, and make no image")
    arguments = parser.parse_args()
    weights = arguments.weights or ("packed" if arguments.variant == "cpu" else "mounted")
    image = f"{NAME}:{arguments.tag or default_tag(arguments.variant)}"
    full = f"{image}-full"
    if weights == "mounted" and arguments.variant == "cpu":
        parser.error("the CPU's image has no torch and can't import mounted weights: --weights packed")
    with store.borrowed_home() if packed(weights) else tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bento = build(arguments.variant, home)
        if arguments.bento is not None:
            run("bentoml", "export", bento, str(arguments.bento.absolute()), home=home)
            return
        run("bentoml", "containerize", bento, "-t", full, "--opt", "progress=plain", home=home)
    importing = "true" if weights == "mounted" else "false"
    values = {"FULL": full, "VARIANT": arguments.variant, "IMPORT": importing, "EXTRA": arguments.extra}
    options = [part for name, value in values.items() for part in ("--build-arg", f"{name}={value}")]
    try:
        run("docker", "build", *options, "-t", image, ".")
    finally:
        run("docker", "rmi", full)
    print(image)


def default_tag(variant: str) -> str:
    """The version of pyproject.toml, with the suffix `-cpu` for the CPU image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['version']}{'-cpu' if variant == 'cpu' else ''}"


def packed(weights: str) -> bool:
    """Whether the store's models go into the image. Prints missing models. Ends the program if the store is empty."""
    if weights == "mounted":
        return False
    missing = [name for name in CATALOGUE if store.find(name) is None]
    if len(missing) == len(CATALOGUE):
        sys.exit("no model is in the store, so there is nothing to pack: make import")
    if missing:
        print(f"NOT IN THE STORE, SO NOT IN THE IMAGE: {', '.join(missing)}; their routes will answer 503", flush=True)
    return True


def build(variant: str, home: Path) -> str:
    """Run `bentoml build` with bentofile.yaml and the variant's requirements. Returns the bento's tag."""
    bentofile = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    bentofile["python"]["requirements_txt"] = REQUIREMENTS[variant]
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "bentofile.yaml"
        changed.write_text(yaml.safe_dump(bentofile), encoding="utf-8")
        said = run("bentoml", "build", "-f", str(changed), "--output", "tag", home=home, read=True)
        return said.strip().removeprefix("__tag__:")


def run(*command: str, home: Path | None = None, read: bool = False) -> str:
    """Run a command in the checkout, and show its output or (read) return it. Ends the program if it fails."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.setdefault("DOCKER_BUILDKIT", "1")  # Docker before version 23 would take its old builder
    if home is not None:
        environment["BENTOML_HOME"] = str(home)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE if read else None, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed with {done.returncode}")
    return done.stdout or ""


if __name__ == "__main__":
    main()
