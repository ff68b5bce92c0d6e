"""How the inputs of case files become the arguments of objectives, one binding per method."""
