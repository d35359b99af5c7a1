"""The suites themselves: a member that breaks one promise is told so, by that promise."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
import torch

import parts2whole as p2w
from parts2whole.contracts import (
    SUITES,
    BrokenPromise,
    MethodContract,
    NetworkContract,
    OptimiserContract,
    ScheduleContract,
    TaskContract,
    WeightSourceContract,
    WhereContract,
    keep,
    promises,
)
from parts2whole.contracts.where import SHAPE, write_store
from parts2whole.methods.autoencoder import Autoencoder
from parts2whole.methods.simclr import SimCLR
from parts2whole.networks.unet3d import UNet3D
from parts2whole.store.split import Split
from parts2whole.tasks.base import Samples
from parts2whole.tasks.classification import Classification
from parts2whole.training.optim import SGD, Constant
from parts2whole.weights.medicalnet import PublishedMedicalNet
from parts2whole.wholes.where import Body

spec = dataclasses.dataclass(frozen=True)


def broken(suite, member, name: str, **settings) -> str:
    """What the promise ``name`` says of ``member``; fails if it is kept."""
    tried = type(f"Test{member.__name__}", (suite,), {"member": member, **settings})
    tried.setup_class()
    try:
        with pytest.raises(BrokenPromise) as error:
            getattr(tried(), f"test_{name}")()
    finally:
        tried.teardown_class()
    return str(error.value)


@pytest.mark.parametrize("suite", SUITES)
def test_every_promise_is_told_in_one_sentence(suite):
    for name, words in promises(suite).items():
        assert words.endswith("."), name
        assert words[0].isupper(), name


# --- specs -------------------------------------------------------------------------------------------------


class Undecorated(Autoencoder):
    temperature: float = 1.0


@spec
class Growing(Constant):
    rate: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", 2 * self.rate)


@pytest.mark.parametrize(
    ("suite", "member", "said"),
    [(MethodContract, Undecorated, "dataclass(frozen=True)"), (ScheduleContract, Growing, "becomes")],
)
def test_a_spec_that_does_not_read_back(suite, member, said):
    assert said in broken(suite, member, "is_a_frozen_spec_that_reads_back")


# --- methods -----------------------------------------------------------------------------------------------


@spec
class Unseeded(Autoencoder):
    def views(self, wholes, generator):
        found = super().views(wholes, generator)
        return found | {"part": found["part"] + 0.1 * torch.rand(())}


@spec
class CutByRank(SimCLR):
    def views(self, wholes, generator):
        generator.first = 0
        return super().views(wholes, generator)


@spec
class InPlace(Autoencoder):
    def views(self, wholes, generator):
        return super().views(wholes.mul_(0.5), generator)


@spec
class Unreached(Autoencoder):
    def loss(self, module, views):
        return {"loss": (next(module.decoder.parameters()) ** 2).sum()}


@spec
class Infinite(Autoencoder):
    def loss(self, module, views):
        return {"loss": super().loss(module, views)["loss"] / 0}


@spec
class NeverLearning(Autoencoder):
    def loss(self, module, views):
        return {"loss": super().loss(module, views)["loss"] * 1e-9 + 1}


@spec
class Remembering(Autoencoder):
    def loss(self, module, views):
        module.calls = getattr(module, "calls", 0) + 1
        return {"loss": super().loss(module, views)["loss"] * module.calls}


@spec
class Adding(Autoencoder):
    def loss(self, module, views):
        return {"loss": super().loss(module, views)["loss"] * len(views["part"])}


@spec
class OutOfRange(Autoencoder):
    def reconstruct(self, module, part):
        return super().reconstruct(module, part) + 1


@spec
class NoChoice(SimCLR):
    def candidates(self, wholes):
        return 1


@pytest.mark.parametrize(
    ("member", "name", "said"),
    [
        (Unseeded, "views_depend_on_the_generator_alone", "part differs"),
        (CutByRank, "two_devices_see_what_one_sees", "part differs"),
        (InPlace, "views_leave_the_wholes_alone", "in place"),
        (Unreached, "loss_is_a_finite_scalar_that_reaches_the_encoder", "no gradient reaches"),
        (Infinite, "loss_is_a_finite_scalar_that_reaches_the_encoder", "loss is inf"),
        (NeverLearning, "it_learns", "went from 1 to 1"),
        (Remembering, "a_run_restored_from_its_state_is_the_run", "keep what changes in a buffer"),
        (Remembering, "validating_leaves_the_state_alone", "then"),
        (Adding, "rows_are_independent_where_it_says_so", "for its pieces"),
        (OutOfRange, "a_reconstruction_is_an_image_of_the_whole", "values from"),
        (NoChoice, "guessing_is_what_a_discrimination_can_be_compared_with", "1 candidates"),
    ],
)
def test_a_method_that_breaks_a_promise(member, name, said):
    assert said in broken(MethodContract, member, name)


# --- networks ----------------------------------------------------------------------------------------------


@spec
class Boasting(UNet3D):
    def build_encoder(self, in_channels):
        encoder = super().build_encoder(in_channels)
        encoder.channels = tuple(2 * width for width in encoder.channels)
        return encoder


@spec
class Moody(UNet3D):
    def build_encoder(self, in_channels):
        torch.manual_seed(random.randrange(2**32))
        return super().build_encoder(in_channels)


@spec
class Hiding(UNet3D):
    def build_encoder(self, in_channels):
        encoder = super().build_encoder(in_channels)
        shift = torch.rand(())
        encoder.register_forward_hook(lambda module, given, found: tuple(level + shift for level in found))
        return encoder


@spec
class Unnamed(UNet3D):
    def build_encoder(self, in_channels):
        encoder = super().build_encoder(in_channels)
        encoder.input_axes = {}
        return encoder


@pytest.mark.parametrize(
    ("member", "name", "said"),
    [
        (Boasting, "the_pyramid_is_what_the_encoder_says", "and says"),
        (Moody, "the_same_seed_gives_the_same_weights", "differ"),
        (Hiding, "loaded_weights_are_the_encoder", "level 0 differs"),
        (Unnamed, "input_axes_name_what_grows_with_the_channels", "grows along axis [1]"),
    ],
)
def test_a_network_that_breaks_a_promise(member, name, said):
    assert said in broken(NetworkContract, member, name)


# --- tasks -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> dict:
    """Settings of a task on data that are prepared once."""
    task = Classification.example(tmp_path_factory.mktemp("list"))
    return {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}


@spec
class Mixed(Classification):
    def split(self, labelled):
        names = [item.item_id for item in labelled.items]
        return Split(tuple(names[:5]), tuple(names[5:8]), tuple(names[8:]))  # the third patient on two


@spec
class Leaking(Classification):
    def held_out_hashes(self, *, cache):
        return set()


@spec
class Restless(Classification):
    def augment(self, batch, generator):
        batch["image"] *= random.random()
        return super().augment(batch, generator)


@spec
class Lazy(Classification):
    def examine(self, predictor, labelled, items, *, thorough):
        return super().examine(predictor, labelled, items[:1], thorough=thorough)


@spec
class Blind(Classification):
    def samples(self, labelled, items, *, seed, batch_size):
        return super().samples(labelled, items, seed=0, batch_size=batch_size)


@spec
class OneSided(Classification):
    def samples(self, labelled, items, *, seed, batch_size):
        class Ones(Samples):
            def draw(self, item_id, generator):
                return {"image": torch.rand(1, 16, 16, 16), "target": 1}

        return Ones(items, seed=seed, batch_size=batch_size)


@spec
class Wide(Classification):
    def image(self, labelled, item_id):
        return super().image(labelled, item_id) * 2


@spec
class Summed(Classification):
    def loss(self, module, batch):
        return {"loss": super().loss(module, batch)["loss"] * len(batch["image"])}


@pytest.mark.parametrize(
    ("member", "name", "said"),
    [
        (Mixed, "no_patient_is_on_two_sides_at_any_fraction", "a patient is on two sides"),
        (Leaking, "held_out_hashes_are_those_of_validation_and_test", "would be pre-trained on"),
        (Restless, "augmenting_depends_on_the_generator_alone", "in place"),
        (Lazy, "examination_measures_every_item", "are measured"),
        (Blind, "samples_depend_on_the_seed_and_the_number_alone", "another seed"),
        (OneSided, "training_sees_every_class", "abdomen is in none"),
        (Wide, "a_batch_is_of_the_networks_size_and_trains_the_encoder", "values from"),
        (Summed, "rows_are_independent_where_it_says_so", "for its pieces"),
    ],
)
def test_a_task_that_breaks_a_promise(member, name, said, example):
    def make(cls, folder):
        return member(**example)

    assert said in broken(TaskContract, member, name, make=classmethod(make))


@spec
class Bare(p2w.Classification):
    @classmethod
    def example(cls, folder):
        return super(p2w.Classification.__mro__[1], cls).example(folder)


def test_a_task_without_an_example_says_how_to_give_it_one():
    (only,) = keep(type("TestBare", (TaskContract,), {"member": Bare}))
    assert only.fate == "broken"
    assert "Bare has no example: give it a class method example(folder)" in only.why


# --- the others --------------------------------------------------------------------------------------------


@spec
class Anonymous(PublishedMedicalNet):
    prefix = "i3d"


@spec
class Silent(PublishedMedicalNet):
    def destination(self, name):
        return ""


@pytest.mark.parametrize(
    ("member", "name", "said"),
    [
        (Anonymous, "its_prefix_is_a_word_of_its_own", "is that of PublishedI3D"),
        (Silent, "every_name_has_a_destination_or_a_reason", "'' for 'weight'"),
    ],
)
def test_a_weight_source_that_breaks_a_promise(member, name, said):
    assert said in broken(WeightSourceContract, member, name)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("where") / "store")


@spec
class Outside(Body):
    def place(self, store, record, size, generator):
        return (0, 0, record.shape[2])


@spec
class Drifting(Body):
    def place(self, store, record, size, generator):
        return super().place(store, record, size, np.random.default_rng())


@spec
class Nowhere(Body):
    def place(self, store, record, size, generator):
        return None


@pytest.mark.parametrize(
    ("member", "name", "said"),
    [
        (Outside, "a_whole_lies_in_its_scan", f"leaves a scan of {SHAPE}"),
        (Drifting, "a_place_depends_on_the_generator_alone", "with the same generator"),
        (Nowhere, "it_finds_places_in_a_body", "gave 0 places"),
    ],
)
def test_a_rule_that_breaks_a_promise(member, name, said, store, monkeypatch):
    monkeypatch.setattr("parts2whole.contracts.where.write_store", lambda path: store)
    assert said in broken(WhereContract, member, name)


@spec
class Backwards(SGD):
    def build(self, groups):
        return torch.optim.SGD(groups, lr=self.lr, maximize=True)


@spec
class Ungrouped(SGD):
    def build(self, groups):
        return torch.optim.SGD([p for group in groups for p in group["params"]], lr=self.lr)


@spec
class Jumping(SGD):
    def build(self, groups):
        class Jumps(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.data -= 0.01

        return Jumps(groups, lr=self.lr)


@pytest.mark.parametrize(
    ("member", "name", "said"),
    [
        (Backwards, "it_goes_downhill", "in 50 steps"),
        (Jumping, "a_rate_of_zero_moves_nothing", "has moved"),
    ],
)
def test_an_optimiser_that_breaks_a_promise(member, name, said):
    assert said in broken(OptimiserContract, member, name)


def test_an_optimiser_that_drops_its_groups():
    outcomes = {one.promise: one for one in keep(type("T", (OptimiserContract,), {"member": Ungrouped}))}
    failed = [one for one in outcomes.values() if one.fate == "broken"]
    assert any("Parameter groups keep their scale" in one.promise for one in failed)


@spec
class Negative(Constant):
    def factor(self, step, *, steps, values):
        return 1 - 2 * step / steps


@spec
class Dividing(Constant):
    def factor(self, step, *, steps, values):
        return step / (steps - 1) if steps > 1 else math.nan


@spec
class Idle(Constant):
    def factor(self, step, *, steps, values):
        return 0.0


@spec
class Sorting(Constant):
    def factor(self, step, *, steps, values):
        if isinstance(values, list):
            values.sort()
        return 1.0


@spec
class Counting(Constant):
    calls = []  # noqa: RUF012

    def factor(self, step, *, steps, values):
        self.calls.append(step)
        return 1 / len(self.calls)


@pytest.mark.parametrize(
    ("member", "name", "said"),
    [
        (Negative, "a_factor_is_a_number_not_below_zero", "at step"),
        (Dividing, "a_factor_is_a_number_not_below_zero", "nan at step 0 of 1"),
        (Idle, "a_run_learns", "is 0.0"),
        (Sorting, "validations_are_left_alone", "has become"),
        (Counting, "a_factor_depends_on_its_arguments_alone", "in another order"),
    ],
)
def test_a_schedule_that_breaks_a_promise(member, name, said):
    assert said in broken(ScheduleContract, member, name)
