"""Scheduling policies of one worker, one a file, behind one protocol (`base.py`)."""
