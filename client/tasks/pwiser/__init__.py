"""Click logs with two outcomes: what is looked at, and what is taken up."""
