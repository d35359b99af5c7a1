"""Target tasks, one file each: cases, split, head, loss and metric."""
