"""Pure functions on images and on the outputs of networks."""
