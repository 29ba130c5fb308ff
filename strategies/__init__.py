"""How hospitals' updates are combined, encoded and kept; knows no data, no noise, no names."""
