"""Tuning of run files by Bayesian optimisation: space, surrogate, acquisition, search, report."""
