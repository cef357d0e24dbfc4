"""Plumbing: errors, files, result folders, progress, signals, figures. Imports nothing else of ours."""
