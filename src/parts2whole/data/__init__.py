"""Scans in, wholes out: reading, preprocessing, the store, splits, the sampler and box geometry."""
