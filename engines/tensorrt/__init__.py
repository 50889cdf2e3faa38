"""TensorRT: the engine, the cache of built engines, and the builds in separate processes."""
