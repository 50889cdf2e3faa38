"""The import step: finds weights, checks and converts them, and compares the graphs with the original network."""
