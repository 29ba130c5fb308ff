"""Rules that combine hospitals' changes so that a few malicious ones cannot decide the result."""
