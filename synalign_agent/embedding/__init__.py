"""Sentence embeddings: the encoder, and a cache so that no text is embedded twice."""
