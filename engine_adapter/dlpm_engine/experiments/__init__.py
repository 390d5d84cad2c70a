"""The experiments of the paper on clusters, in simulated time: `make results-d2lpm`."""
