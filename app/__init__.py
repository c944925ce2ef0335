"""Millrace: background work and knowledge in one engine."""

__version__ = "0.1.0"
