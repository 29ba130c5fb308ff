"""Ballots: clinicians rank candidate replies or principles; only noised duels leave a hospital."""
