"""Quantizes a graph to int8, calibrated on the user's pictures, and measures the loss."""
