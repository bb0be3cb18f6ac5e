"""Train, blend and ship ensembles for environmental sound classification."""

__version__ = "0.1.0"
