"""From settings to rows: an experiment, its cell, its training and judging, and where results lie."""
