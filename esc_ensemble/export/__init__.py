"""Trained blends into files that run without this package; each export ends in a parity check or fails."""
