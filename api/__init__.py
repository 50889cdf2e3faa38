"""HTTP: from a request's bytes to its answer or its error."""
