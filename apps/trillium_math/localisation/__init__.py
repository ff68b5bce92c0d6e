"""Where a wrong trajectory goes wrong: by rollouts, by a judge, or by an oracle."""
