"""Decides which models of a runner process are in memory, and measures their memory."""
