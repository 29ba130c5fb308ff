"""Instruction tuning in which the model first says which of the examples it is shown are right."""
