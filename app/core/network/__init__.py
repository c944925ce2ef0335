"""Addresses that may be connected to, and bodies that are decompressed within limits."""
