"""Other ways to weigh a pool, to compare with."""
