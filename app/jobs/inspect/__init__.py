"""Reads of the job tables for people: explanations, queue statistics, dead letters, bulk commands."""
