"""Pretext tasks, one file each: a batch of wholes becomes views and a loss."""
