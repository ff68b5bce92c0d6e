"""From a trained adapter to what serves it: checks, manifests, merged weights, GGUF, cards."""
