"""A study: its file, its command line, and the ways to run it."""
