"""Merging of adapters and of whole models: linear, SLERP, TIES and DARE."""
