"""How trajectories become a better policy: one module per method, all under `method.Method`."""
