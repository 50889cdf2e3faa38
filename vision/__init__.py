"""Pure functions on pictures and on what networks say of them."""
