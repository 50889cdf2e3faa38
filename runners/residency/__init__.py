"""Which models of a runner process are in memory, and what that takes."""
