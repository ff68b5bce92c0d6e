"""The recommendation application. Nothing is implemented yet."""
