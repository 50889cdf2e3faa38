"""Why a model was not imported."""

from __future__ import annotations


class ImportFailure(RuntimeError):
    """A model was not imported. The text names what is wrong and the remedy; the store is as it was before."""


class WeightsMissing(ImportFailure):
    """No weights were found on this machine and none could be downloaded."""


class WeightsRefused(ImportFailure):
    """A file was found that is not, or not wholly, the model it should be."""


class GraphInexact(ImportFailure):
    """An exported graph answers otherwise than the original network does."""
