"""automx sets up mail clients from one database."""

__version__ = "1.0.0"
