"""A bridge from Frigate's events to Home Assistant."""
