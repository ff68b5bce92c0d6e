"""Policies: loading, adapters, precision, and a tiny one for tests."""
