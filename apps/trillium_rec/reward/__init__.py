"""Reward models: what users would think of a list, learned from logged sessions."""
