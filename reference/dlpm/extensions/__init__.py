"""Realities of engines that the paper leaves out: small variants of the reference, a file for each."""
