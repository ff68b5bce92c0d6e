"""The recommendation application: semantic ids, generative models, exact decoding, evaluation."""
