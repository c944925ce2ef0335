"""Start and supervise the processes of the system."""
