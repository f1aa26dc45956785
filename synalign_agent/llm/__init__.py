"""Talking to the model: endpoints, the call journal, the budget, and reading structured replies."""
