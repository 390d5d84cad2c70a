"""DLPM on torch tensors: the reference's decisions, faster. Start with `scheduler.py`."""
