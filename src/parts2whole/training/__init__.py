"""One training loop, and what a run needs around it.

Read `loop` first, then `step` (one optimiser step, in micro-batches), `optim`, `runtime` (devices, precision,
processes) and `checkpoint`.  A run: `folder`, `lock`, `stop`, `provenance`, `track` and `loggers`, `model`
(a fine-tuned model on disk).  What goes in: `scans` (to pre-train on), `transfer` (weights that meet labelled
data), `leak` (scans seen in pre-training).  What is watched: `monitor`, `examine`, `health`.  What is shown:
`encode` (frozen encoders, the one loop), `embedding`, `panels`, and `error_maps` on the grid of their scan.
"""
