"""Preference objectives: pure functions by family, and the literal table of all of them."""
