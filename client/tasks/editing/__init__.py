"""Medical editing: teach a model corrections that several hospitals' records agree on."""
