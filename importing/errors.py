"""The errors of the import step."""

from __future__ import annotations


class ImportFailure(RuntimeError):
    """A model was not imported. The text names the problem and the remedy. The store is unchanged."""


class WeightsMissing(ImportFailure):
    """No weights were found on this machine, and none could be downloaded."""


class WeightsRefused(ImportFailure):
    """A weights file was found, but it is another model's, incomplete or damaged."""


class GraphInexact(ImportFailure):
    """An exported graph's outputs differ too much from the original network's."""
