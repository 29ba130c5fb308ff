"""Statistics from which a coordinator learns who causes whom: bounded moments of rows."""
