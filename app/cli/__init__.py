"""What a person types: up, index, search, jobs, doctor, config; --json on each, progress bars on a terminal."""
