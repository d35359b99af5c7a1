"""Synthetic scans, deterministic by seed, so that everything can be tried without data."""
