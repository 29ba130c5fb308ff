"""The privacy core: units, clipping, noise, events, accounting, ledger, policy, reports.

Imports nothing else of Wardround, and nothing of Flower, models or tasks. ``Unit``, events, errors,
tables, signing and the ledger load without torch; the rest is imported from its own module.
"""

from wardround.privacy.units import Adjacency, Unit

__all__ = ["Adjacency", "Unit"]
