"""The first domain: its mail servers are found, its rows written, what is left to do is named."""
