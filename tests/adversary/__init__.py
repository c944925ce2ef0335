"""Attacks on the running system, one file for each kind of attack."""
