"""Engines run a graph on a device: uint8 images in, float32 arrays out. They know nothing about models or tasks."""

from __future__ import annotations

import sys

# On import, openvino reports to Google Analytics through this package. Without the package it uses its own stub.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
