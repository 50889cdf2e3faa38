"""Examples of clients of the service."""
