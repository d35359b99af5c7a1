"""Metrics, statistics, sliding-window inference and probes of frozen features."""
