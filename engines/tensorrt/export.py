"""Builds one TensorRT engine with ultralytics' exporter, in a separate process.

usage: python export.py CHECKPOINT --max-batch N --max-side PIXELS --precision f16|f32 --workspace GIB

Writes CHECKPOINT with the suffix .engine. The process ends when its standard input closes, so it never outlives the
runner that started it.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

_QUANTIZE = {"f16": 16, "f32": 32}


def main() -> None:
    """Export, and report progress on standard output. A failure ends in a traceback and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--max-batch", type=int, required=True)
    parser.add_argument("--max-side", type=int, required=True)
    parser.add_argument("--precision", choices=_QUANTIZE, required=True)
    parser.add_argument("--workspace", type=float, required=True)
    arguments = parser.parse_args()
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    # No downloads: the operator installs missing packages.
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_CONFIG_DIR=str(arguments.checkpoint.parent))
    from ultralytics import YOLO  # type: ignore[attr-defined]

    YOLO(arguments.checkpoint).export(
        format="engine",
        device=0,  # CUDA_VISIBLE_DEVICES leaves only one
        dynamic=True,
        batch=arguments.max_batch,
        # The exporter's dynamic profile reaches up to twice `imgsz`. A larger one would only reserve memory.
        imgsz=arguments.max_side // 2,
        quantize=_QUANTIZE[arguments.precision],
        workspace=arguments.workspace,
        simplify=False,  # it would need two more packages
    )


def _end_with_the_runner() -> None:
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read: its lock would abort the interpreter at exit
    os._exit(1)


if __name__ == "__main__":
    main()
