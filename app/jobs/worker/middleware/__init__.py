"""Dramatiq middleware around every run, one behaviour a file."""
