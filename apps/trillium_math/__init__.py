"""The mathematics application. Nothing is implemented yet."""
