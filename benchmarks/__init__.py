"""Benchmarks: each module answers one question about speed, memory or accuracy."""
