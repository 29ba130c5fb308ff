"""The custodian in a process of its own: how it is reached, served and called."""
