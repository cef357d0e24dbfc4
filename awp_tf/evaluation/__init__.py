"""Robust accuracy: as a number (accuracy), and so that nobody need doubt it (audit)."""
