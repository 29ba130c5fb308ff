"""Prompts learnt for a model of images and texts: CoOp and CoCoOp, federated."""
