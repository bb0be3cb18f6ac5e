"""From a folder or table on disk to waveforms, labels and folds. Nothing in this package imports torch."""
