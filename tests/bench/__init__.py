"""Benchmarks: each prints its row beside the peer or the bare library, measured in the same run."""
