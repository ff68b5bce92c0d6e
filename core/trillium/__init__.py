"""The shared core: token trees, scoring, objectives, training, generation, runs and reports.

Importing it costs nothing and loads no third-party package; import the module you need.
"""
