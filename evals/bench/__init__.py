"""A benchmark of the numeric core against what else one could use, side by side in one run."""
