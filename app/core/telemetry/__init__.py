"""Traces, metrics of all programs, error reports, and log lines that repeat."""
