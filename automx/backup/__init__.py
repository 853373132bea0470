"""Backups: all rows of the database in one file, for any database that automx knows.

``values`` has the form of each value, ``file`` that of the lines, ``rows`` writes them from the
tables, ``restore`` fills an empty database with them.
"""
