"""Routers: which worker of a cluster gets a request; one a file, one protocol (`base.py`)."""
