"""The relay process: feeds Redis from SQL and frees the jobs of dead workers."""
