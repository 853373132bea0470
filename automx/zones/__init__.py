"""Zones of DNS: writes the records of a domain, and changes its PACC document without a mismatch.

``plan`` compares what a zone holds with what it should hold, ``primary`` reads and writes zones by
DNS (RFC 2136), ``program`` writes them by a program. ``rollover`` says which PACC document is
served and which digests stand in the zone, ``states`` keeps that, and ``apply`` does all for one
domain.
"""
