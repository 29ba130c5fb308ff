"""Linear causal models: who causes whom, learnt from rows or from sums, and their abstractions."""
