"""The machine that a benchmark runs on, in a line for its page."""

from __future__ import annotations

import os
import time

import torch

from parts2whole.training.cpu_precision import processor


def describe_machine() -> str:
    """Processor, cores, PyTorch, date and how busy the machine is."""
    return (
        f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}, "
        f"load average {os.getloadavg()[0]:.1f}."
    )
