"""Real mail clients against a running automx."""
