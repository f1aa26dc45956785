"""Scores of a selection: pure functions of rows, texts and numbers."""
