"""Exact greedy selection at a fraction of a full pass: lazy maxima over stale variances."""
