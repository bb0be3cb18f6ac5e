"""Classifiers that take seconds, for others to be held against: no torch."""
