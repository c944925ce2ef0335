"""Benchmarks: each prints its row with the figure of the peer or the bare library from the same run."""
