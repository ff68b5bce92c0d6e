"""An OpenAI-compatible server for one base model and many adapters, with or without a GPU."""
