"""Tests of the log checker."""
