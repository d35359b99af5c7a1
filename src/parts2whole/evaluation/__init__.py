"""Metrics, statistics, sliding windows and probes of frozen features.

Segmentation: `regions`, `surface`, `inference`; classification and detection: `metrics`, `froc`; features:
`probes`, `contrast`, `composition`, `retrieval`, `projections`.  Statistics, which need no torch:
`statistics` (tests of two samples), `permutation`, `bootstrap`, `power`, `endpoints` (areas, tails, spreads
and ranks).
"""
