"""Rules of access that need both the keys and the jobs; the API and the dashboard apply the same ones."""
