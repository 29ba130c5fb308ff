"""Social choice: how many people's preferences become one, and what that choice can be held to.

The rules here see counts of who prefers what to what, or whole ballots; who cast them, and whether
noise was added, is known elsewhere. Conitzer et al. (2024), "Social choice should guide AI
alignment", argues for making these choices openly; it defines no rule of its own, so every rule
below names its own source. Which rule a consortium uses is a normative choice: it is configured.
"""
