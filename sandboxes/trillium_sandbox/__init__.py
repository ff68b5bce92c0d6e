"""Run programs that nobody trusts, and decide the verdict outside the candidate's process.

Imports the standard library only; nothing here knows about models, trees or training.
"""
