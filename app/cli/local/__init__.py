"""Work on the installation of this machine, without its API: settings, schema, backups, checks, imports."""
