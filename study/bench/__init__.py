"""Benchmarks: plain functions that measure and return dictionaries; the CLI prints them."""
