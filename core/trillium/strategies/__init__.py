"""Strategies for preference data: judges, rationales, personal prompts, follow-up likelihoods.

Each is a command of `trillium data` that reads and writes the rows of `trillium.records` and asks a
model, local or behind an OpenAI-compatible server.
"""
