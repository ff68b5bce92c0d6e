"""Training on preference trees: sampler, trainer, checkpoints, and `align` over all of them."""
