"""The code application: a model writes programs and tests, the sandbox ranks them, training follows."""
