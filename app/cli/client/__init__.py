"""Talk to the API of a server: profiles, requests, event streams, waiting for jobs."""
