"""Benchmarks: ``make bench`` measures what docs/performance.md promises, beside automx2."""
