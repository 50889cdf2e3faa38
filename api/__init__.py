"""The HTTP layer: turns a request's bytes into its answer or its error."""
