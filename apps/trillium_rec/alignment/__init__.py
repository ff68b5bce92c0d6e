"""Preference alignment: sessions drawn from a snapshot, ranked by a reward model."""
