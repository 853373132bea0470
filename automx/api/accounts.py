"""Tokens and accounts by HTTP."""

OPERATIONS = ()
