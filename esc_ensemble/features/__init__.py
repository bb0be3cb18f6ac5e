"""Waveforms (B, T) to features (B, channels, F, L), all in torch and all exportable."""
