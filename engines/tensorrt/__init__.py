"""TensorRT: an engine, the cache of built engines, and their building in a process of its own."""
