"""A worker process: fetches, claims and runs jobs, and writes their ends."""
