"""Prompt files: loading, checking, hashing and rendering."""
