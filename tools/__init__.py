"""Tools for developers and operators: images, trials, drawings and figures about the code."""
