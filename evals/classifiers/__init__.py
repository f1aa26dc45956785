"""Classifiers that are trained on real and synthetic rows, to see which rows make the better data."""
