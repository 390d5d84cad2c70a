"""Loaders of public serving traces in their original formats; one format a file, what they share in `row`."""
