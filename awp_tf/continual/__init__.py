"""Learning one task after another: memory, gradient bases, flat minima (FS-DGPM)."""
