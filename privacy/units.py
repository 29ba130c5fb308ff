"""Who is protected: the unit of privacy and what makes two data sets neighbours.

Knows nothing of models or files. Sources: Dwork and Roth (2014), definition 2.4; Ponomareva et al.
(2023), "How to DP-fy ML", section 2.1 on units of privacy.
"""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """What one person's worth of data is; one clipped contribution per unit and step."""

    RECORD = "record"
    PAIR = "pair"
    LIST = "list"
    PATIENT = "patient"
    CLINICIAN = "clinician"
    AUTHOR = "author"
    SPEAKER = "speaker"
    TASK = "task"
    SITE = "site"
    LABEL = "label"  # which of the things a record may say it does say, and nothing else of it


class Adjacency(StrEnum):
    """When two data sets count as neighbours."""

    ADD_REMOVE = "add-remove"
    REPLACE_ONE = "replace-one"

    @property
    def displacement(self) -> int:
        """How many clipped contributions can differ between neighbours: 1, or 2 for a swap."""
        return 1 if self is Adjacency.ADD_REMOVE else 2
