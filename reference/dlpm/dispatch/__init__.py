"""Routers: which worker of a cluster gets a request. Algorithm 2 and its baselines, one a file, one protocol (`base.py`)."""
