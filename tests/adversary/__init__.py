"""Attacks on the system by those whose input it takes: documents, pages, jobs, callers."""
