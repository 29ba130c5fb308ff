"""Per-unit gradients: what DP-SGD clips, formed inside the ordinary backward pass."""
