"""The processes a hospital and a coordinator run for real."""
