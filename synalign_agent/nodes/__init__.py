"""The loop's nodes: read by id, call one core function or one prompt, write, return ids and scalars."""
