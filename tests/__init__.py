"""Tests of automx: each starts the real programs it needs and stops them."""
