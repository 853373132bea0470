"""Formats: pure functions from a ClientConfig to the bytes that one kind of client reads."""
