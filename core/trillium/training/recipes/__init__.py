"""Iterative methods of the literature, each a small object around a named objective."""
