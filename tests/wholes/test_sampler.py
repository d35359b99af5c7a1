from __future__ import annotations

import numpy as np
import pytest
import torch

from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume, content_hash
from parts2whole.store.store import CaseRecord, Store
from parts2whole.wholes.loader import LoaderError, Share, load_batches
from parts2whole.wholes.sampler import SamplerError, Wholes, WholeSampler, WholeSize

SHAPES = {"a": (12, 20, 24), "b": (30, 20, 16), "small": (6, 20, 20)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = Store.create(tmp_path_factory.mktemp("store") / "s", preprocess=Preprocess(modality="CT"))
    for number, (case, shape) in enumerate(SHAPES.items()):
        hu = np.random.default_rng(number).integers(-1000, 1000, shape).astype(np.int16)
        volume = Volume(hu, (2.0, 1.0, 1.0))
        record = CaseRecord(
            case_id=case,
            patient=case,
            modality="CT",
            channels=1,
            shape=shape,
            spacing_mm=volume.spacing_mm,
            origin_mm=volume.origin_mm,
            direction=volume.direction,
            scale=1 / 2000,
            offset=0.5,
            content_hash=content_hash(hu),
        )
        store.write_case(record, hu[None])
    store.finish()
    return store


def test_a_whole_is_the_box_of_the_scan(store):
    sampler = WholeSampler(store, size=WholeSize((8, 8, 8)), cases=["a", "b"])
    for index in range(20):
        whole = sampler.draw(0, index)
        stored = store.read(whole.case_id)
        record = store.record(whole.case_id)
        z, y, x = (slice(s, s + 8) for s in whole.box.start)
        expected = stored[:, z, y, x].astype(np.float32) * record.scale + record.offset
        np.testing.assert_allclose(sampler.read(whole).numpy(), expected, atol=1e-6)


def test_draws_depend_on_seed_step_and_index_alone(store):
    one, two = (WholeSampler(store, size=WholeSize((8, 8, 8)), seed=5) for _ in range(2))
    assert [one.draw(3, i) for i in range(9)] == [two.draw(3, i) for i in range(9)]
    other = WholeSampler(store, size=WholeSize((8, 8, 8)), seed=6)
    assert [one.draw(3, i) for i in range(9)] != [other.draw(3, i) for i in range(9)]


def test_every_scan_and_every_place_is_drawn(store):
    sampler = WholeSampler(store, size=WholeSize((8, 8, 8)))
    drawn = [sampler.draw(0, i) for i in range(3000)]
    counts = {case: sum(w.case_id == case for w in drawn) for case in SHAPES}
    assert min(counts.values()) > 850
    starts = {w.box.start[0] for w in drawn if w.case_id == "a"}
    assert starts == set(range(12 - 8 + 1))


def test_a_small_scan_is_padded_with_zero_and_named(store):
    sampler = WholeSampler(store, size=WholeSize((8, 8, 8)), cases=["small"])
    assert sampler.padded_cases() == ("small",)
    whole = sampler.read(sampler.draw(0, 0))
    assert whole.shape == (1, 8, 8, 8)
    # HU -1000 is 0 in [0, 1]; the padding is stored as the value nearest to it.
    assert float(whole[:, 0].abs().max()) < 1e-6
    assert float(whole[:, 1:7].mean()) == pytest.approx(0.5, abs=0.1)


def test_sizes_in_mm_follow_the_spacing(store):
    size = WholeSize((8, 8, 8), mm=(16.0, 16.0, 16.0))
    assert size.in_scan((2.0, 1.0, 1.0)) == (8, 16, 16)
    sampler = WholeSampler(store, size=size, cases=["a"])
    whole = sampler.draw(0, 0)
    assert whole.box.size == (8, 16, 16)
    assert sampler.read(whole).shape == (1, 8, 8, 8)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (1, 2)])
def test_batches_are_the_same_for_any_number_of_devices_and_workers(store, ranks, workers):
    sampler = WholeSampler(store, size=WholeSize((8, 8, 8)))
    expected = [torch.stack([sampler.read(sampler.draw(s, i)) for i in range(4)]) for s in range(3)]
    shares = [
        list(
            load_batches(
                Wholes(sampler, 4), batch_size=4, first_step=1, steps=3, share=Share(rank, ranks, workers)
            )
        )
        for rank in range(ranks)
    ]
    for step in range(2):
        together = torch.cat([shares[rank][step] for rank in range(ranks)])
        torch.testing.assert_close(together, expected[step + 1], rtol=0, atol=0)


def test_a_batch_that_can_not_be_divided_is_refused(store):
    sampler = WholeSampler(store, size=WholeSize((8, 8, 8)))
    with pytest.raises(LoaderError, match="can't be divided over 3"):
        list(load_batches(Wholes(sampler, 2), batch_size=2, first_step=0, steps=1, share=Share(0, 3)))


def test_no_cases_is_refused(store):
    with pytest.raises(SamplerError, match="no cases"):
        WholeSampler(store, size=WholeSize((8, 8, 8)), cases=[])


def test_a_bank_is_fixed_wholes_known_by_number(store):
    sampler = WholeSampler(store, size=WholeSize((8, 8, 8)), cases=["a", "b"], seed=3, bank=5)
    again = WholeSampler(store, size=WholeSize((8, 8, 8)), cases=["a", "b"], seed=3, bank=5)
    drawn = [sampler.draw(step, 0) for step in range(200)]
    assert drawn == [again.draw(step, 0) for step in range(200)]
    by_number = {whole.number: whole for whole in drawn}
    assert sorted(by_number) == [0, 1, 2, 3, 4]
    assert all(by_number[whole.number] == whole for whole in drawn)
    counts = np.bincount([whole.number for whole in drawn])
    assert counts.min() > 20
    other = WholeSampler(store, size=WholeSize((8, 8, 8)), cases=["a", "b"], seed=4, bank=5)
    assert {other.draw(step, 0) for step in range(50)}.isdisjoint(drawn)


def test_a_larger_bank_holds_the_smaller_one(store):
    small, large = (WholeSampler(store, size=WholeSize((8, 8, 8)), bank=bank) for bank in (3, 9))
    of_large = {whole.number: whole for whole in (large.draw(step, 0) for step in range(200))}
    assert all(of_large[whole.number] == whole for whole in (small.draw(step, 1) for step in range(20)))


def test_batches_of_a_bank_carry_the_numbers(store):
    sampler = WholeSampler(store, size=WholeSize((8, 8, 8)), bank=4)
    (batch,) = load_batches(Wholes(sampler, 6), batch_size=6, first_step=2, steps=3, share=Share())
    for index in range(6):
        whole = sampler.draw(2, index)
        assert int(batch["number"][index]) == whole.number
        torch.testing.assert_close(batch["whole"][index], sampler.read(whole), rtol=0, atol=0)
    with pytest.raises(SamplerError, match="at least 1 whole, got 0"):
        WholeSampler(store, size=WholeSize((8, 8, 8)), bank=0)


@pytest.mark.parametrize(
    "size", [WholeSize((8, 8, 8)), WholeSize((10, 24, 24)), WholeSize((8, 8, 8), (30.0, 12.0, 9.0))]
)
@pytest.mark.parametrize("bank", [None, 5])
def test_samples_read_together_are_those_read_alone(store, size, bank):
    wholes = Wholes(WholeSampler(store, size=size, bank=bank), 4)
    numbers = [7, 0, 3, 7, 11]
    for number, together in zip(numbers, wholes.__getitems__(numbers), strict=True):
        torch.testing.assert_close(together, wholes[number], rtol=0, atol=0)
