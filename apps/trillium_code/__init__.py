"""The code application: programs and tests are sampled, run, ranked, and train the model."""
