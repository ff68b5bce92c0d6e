"""What a preference file or a run tells before and after training: figures, thresholds, advice."""
