"""Published files: documents that are the same for everybody, for nginx to send without automx.

A file holds what automx would answer, and is named after its domain. What has no file, nginx asks
automx for.
"""
