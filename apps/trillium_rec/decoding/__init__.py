"""Constrained decoding of semantic ids: exact beams over the catalogue, for items and sessions."""
