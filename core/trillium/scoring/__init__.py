"""Scoring: hidden states, token statistics, path sums, layouts, references and their cache."""
