"""Reward: judged replies in, one number a dimension of a frozen base's states out."""
