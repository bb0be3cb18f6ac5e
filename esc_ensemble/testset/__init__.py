"""A competition's unlabelled test clips through every fold model of a blend."""
