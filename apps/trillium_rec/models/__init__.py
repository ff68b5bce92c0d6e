"""The generative models and their baseline, as classes that save, load and share like any other."""
