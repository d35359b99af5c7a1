"""One training loop, and what a run needs around it.

Read `loop` first, then `step` (one optimiser step, in micro-batches), `optim`, `runtime` (devices, precision,
processes) and `checkpoint`.  A run: `folder`, `lock`, `stop`, `provenance`, `track` (logs), `model` (a
fine-tuned model on disk), `leak` (scans seen in pre-training).  What is watched: `monitor`, `examine`,
`health`; `error_maps` are reconstructions on the grid of their scan.
"""
