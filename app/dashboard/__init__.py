"""The dashboard: pages under /ui, rendered on the server by the services of the API; they work without scripts."""
