"""The words of the command line, one file a word. They import heavy modules through app/cli/lazy.py only."""
