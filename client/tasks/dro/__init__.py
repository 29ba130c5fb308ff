"""Safeguarding by a soft prompt that moves harmful and harmless queries apart (DRO)."""
