"""Fake servers of outside services; each answers on the loopback and records its requests."""
