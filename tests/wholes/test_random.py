from __future__ import annotations

import torch

from parts2whole.wholes.random import BatchGenerator, sample_generator, stream_seed


def test_labels_decide_and_nothing_else():
    assert stream_seed(0, "views", 3) == stream_seed(0, "views", 3)
    assert len({stream_seed(s, name, i) for s in (0, 1) for name in "ab" for i in range(50)}) == 200
    assert sample_generator(1, "x").random() == sample_generator(1, "x").random()


def test_eight_devices_draw_what_one_draws():
    whole = BatchGenerator.of_step(0, 7, rows=16)
    numbers, noise = whole.uniform(3), whole.normal(2)
    for rank in range(8):
        part = BatchGenerator.of_step(0, 7, rows=2, rank=rank, ranks=8)
        torch.testing.assert_close(part.uniform(3), numbers[2 * rank : 2 * rank + 2])
        torch.testing.assert_close(part.normal(2), noise[2 * rank : 2 * rank + 2])
