"""Secure aggregation: a coordinator learns the sum of the hospitals' updates and no single one.

Pure protocol: values in, bytes out; no files, no network, no clock. The reading order is
``terms``, ``lattice``, ``masks``, ``shamir``, ``keys``, ``letters``, ``party`` (a hospital's side),
``tally`` (the coordinator's side). What it protects, from whom, and what it leaves open is written
for auditors in ``docs/secure-aggregation.md``.
Source: Bonawitz et al. (2017), "Practical secure aggregation for privacy-preserving machine
learning", figure 4, with signatures and the consistency check for active adversaries.
"""
