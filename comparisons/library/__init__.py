"""The suite as a library, for scripts and notebooks: `comparisons.compare`, what it came to, and the fits in it."""
