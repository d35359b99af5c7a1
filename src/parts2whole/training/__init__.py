"""One training loop, with its optimisers, checkpoints, devices and logs."""
