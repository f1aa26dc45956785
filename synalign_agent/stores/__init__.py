"""Where a session keeps its rows, its calls and its vectors."""
