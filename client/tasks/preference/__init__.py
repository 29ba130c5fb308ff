"""Preference tuning: pairs of replies, one of which a clinician prefers, taught to one model."""
