"""The coordinator's pages on a run: what is public of it, read from its folder. Changes nothing."""
