"""Policies side by side on one workload: from options to workers, from runs to results. Start with `compare`."""
