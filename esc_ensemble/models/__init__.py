"""Networks that take waveforms (B, T) and give logits (B, C)."""
