"""Stands in for engines/tensorrt/export.py: takes its arguments, and does what the checkpoint's text says.

The real one calls ultralytics' exporter, which needs a GPU and TensorRT's libraries.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

checkpoint = Path(sys.argv[1])
what, _, argument = checkpoint.read_text(encoding="utf-8").partition(" ")
print("ONNX: starting export with onnx 1.22.0 opset 18...", flush=True)
print(f"\x1b[34mTensorRT:\x1b[0m starting export with TensorRT 10.16.1.11 {' '.join(sys.argv[2:])}", flush=True)
print("[TRT] [I] Local timing cache in use", flush=True)
if what == "slow":
    time.sleep(float(argument))
elif what == "hang":
    time.sleep(600)
elif what == "gate":  # goes on as soon as there is such a file: ends well, or with the reason that stands behind it
    gate, _, reason = argument.partition(" ")
    while not Path(gate).exists():
        time.sleep(0.02)
    if reason:
        sys.exit(reason)
elif what == "wait":
    seconds, _, reason = argument.partition(" ")
    time.sleep(float(seconds))
    sys.exit(reason)
elif what == "terminated":
    os.kill(os.getpid(), 15)
elif what == "fail":
    sys.exit(argument)
elif what == "killed":
    os.kill(os.getpid(), 9)
elif what == "signal":
    os.kill(os.getpid(), int(argument))
elif what == "nothing":
    sys.exit(0)
elif what == "orphan":  # is to end with its standard input
    Path(argument).write_text(str(os.getpid()), encoding="utf-8")
    sys.stdin.buffer.read()
    Path(argument).write_text("ended", encoding="utf-8")
    sys.exit(1)
checkpoint.with_suffix(".engine").write_bytes(b"an engine out of " + checkpoint.read_bytes())
print("TensorRT: export success ✅ 93.1s, saved", flush=True)
