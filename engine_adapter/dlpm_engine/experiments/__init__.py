"""Experiments in simulated time: the paper's on clusters (`make results-d2lpm`), and `make results-quantum`."""
