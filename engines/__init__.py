"""Engines run a graph on a device: uint8 images in, float32 arrays out. They know neither models nor what is seen."""

from __future__ import annotations

import sys

# Importing openvino would report it to Google Analytics. Without this package it uses a stub of its own.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
