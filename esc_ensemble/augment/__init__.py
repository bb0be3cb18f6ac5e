"""Random changes to waveforms, and mixing of clips, in batches on the device."""
