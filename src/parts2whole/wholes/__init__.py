"""Boxes in, batches out: which wholes are drawn, and how they reach the network.

Read in this order: `sampler` (which scan, and where), `where` (rules for the place), `random` (randomness as
a function of seed, step and index), `geometry` (boxes cut and resized, in the batch), `loader` (batches read
ahead).
"""
