"""Sandboxes: child processes that run computing and foreign code within limits."""
