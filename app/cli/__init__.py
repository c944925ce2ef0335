"""The command line: `main` assembles the words, `commands` defines them, the other packages do their work."""
