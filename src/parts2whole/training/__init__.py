"""One training loop, and what a run needs around it.

Read `loop` first, then `step` (one optimiser step, in micro-batches), `optim`, `validation` and `choice` (how
often, and what it decides), `runtime` (devices, precision, processes, found by `cluster`) and `checkpoint`.
A run: `folder`, `lock`, `stop`, `provenance`, `track` and `loggers`, `model` (a fine-tuned model on disk).
What goes in: `scans` (to pre-train on), `continual` (from where another ended), `transfer` (weights that meet
labelled data, at the scale of fresh ones by `rescale`), `rates` (a search for the learning rate), `leak`
(scans seen in pre-training).  What is watched: `monitor`, `examine`, `health`.  What is shown: `encode`
(frozen encoders, the one loop), `embedding`, `panels`, and `error_maps` on the grid of their scan.  New
scans: `network_input`, and `scan_encoder`, which makes vectors of them.  What makes CPUs fast:
`cpu_precision`, `cpu_bfloat16`, `cpu_norm`, `allocator`.
"""
