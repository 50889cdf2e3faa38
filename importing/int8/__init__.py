"""Quantizing a graph to int8 on pictures of the user's, and what that costs."""
