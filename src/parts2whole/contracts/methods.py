"""What every pretext task promises."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import ClassVar
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor, nn

from parts2whole.contracts.base import Contract, promise
from parts2whole.methods.base import Discrimination, Method, Reconstruction, Views
from parts2whole.networks.base import Network
from parts2whole.networks.unet3d import UNet3D
from parts2whole.scans.volume import Size
from parts2whole.training.step import divide_rows
from parts2whole.wholes.random import BatchGenerator

ROWS = 6


class MethodContract(Contract):
    """Promises of a pretext task.

    Attributes:
        network: the network it is tried with.
        whole_size: size in voxels (z, y, x) of the wholes it is tried on.
        learning_rate: of the twenty steps in which it must learn something.
    """

    family = Method
    spec: Method
    network: ClassVar[Network] = UNet3D(size="tiny")
    whole_size: ClassVar[Size] = (8, 16, 16)
    learning_rate: ClassVar[float] = 3e-3

    def wholes(self) -> Tensor:
        """Six smooth wholes in [0, 1], the same every time."""
        coarse = torch.rand(ROWS, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        return nn.functional.interpolate(coarse, size=self.whole_size, mode="trilinear")

    def build(self, seed: int = 0) -> nn.Module:
        """The module on a fresh encoder."""
        torch.manual_seed(seed)
        return self.spec.build(self.network, in_channels=1, whole_size=self.whole_size)

    def views(self, step: int = 1) -> Views:
        """The views of all six wholes."""
        return self.spec.views(self.wholes(), BatchGenerator.of_step(step, rows=ROWS))

    def train(self, module: nn.Module, optimiser: torch.optim.Optimizer, steps: Iterable[int]) -> list[float]:
        """Take some steps, and return the losses."""
        module.train()
        losses = []
        for step in steps:
            torch.manual_seed(step)
            loss = self.spec.loss(module, self.views(step))["loss"]
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            losses.append(float(loss.detach()))
        return losses

    def test_views_depend_on_the_generator_alone(self) -> None:
        """Views are a function of the wholes and the generator: nothing else is random or remembered."""
        first = self.views()
        torch.manual_seed(1)
        np.random.default_rng()
        again = self.views()
        promise(first.keys() == again.keys(), f"views {list(first)}, then {list(again)}")
        for key, view in first.items():
            promise(torch.equal(view, again[key]), f"{key} differs between two calls with the same generator")

    def test_two_devices_see_what_one_sees(self) -> None:
        """Two devices with half of the batch each see what one device sees."""
        wholes, half = self.wholes(), ROWS // 2
        apart = [
            self.spec.views(
                wholes[half * rank : half * (rank + 1)],
                BatchGenerator.of_step(1, rows=half, rank=rank, ranks=2),
            )
            for rank in (0, 1)
        ]
        for key, together in self.views().items():
            joined = torch.cat([views[key] for views in apart])
            same = joined.shape == together.shape and torch.allclose(joined, together, rtol=1e-5, atol=1e-6)
            promise(same, f"{key} differs; draw from the generator as many numbers for every row")

    def test_views_leave_the_wholes_alone(self) -> None:
        """Making views doesn't change the wholes."""
        wholes = self.wholes()
        self.spec.views(wholes, BatchGenerator.of_step(1, rows=ROWS))
        promise(torch.equal(wholes, self.wholes()), "the wholes were changed in place")

    def test_loss_is_a_finite_scalar_that_reaches_the_encoder(self) -> None:
        """The loss is a finite scalar, and its gradient reaches every parameter of the encoder."""
        module = self.build()
        losses = self.spec.loss(module, self.views())
        promise("loss" in losses, f"loss() gives {', '.join(losses)}, without 'loss'")
        for key, value in losses.items():
            promise(value.ndim == 0, f"{key} has shape {tuple(value.shape)}, not that of a scalar")
            promise(torch.isfinite(value), f"{key} is {value.item()}")
        torch.autograd.backward(losses["loss"])
        encoder = module.get_submodule("encoder")
        missed = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
        promise(not missed, f"no gradient reaches {', '.join(missed[:3])}")

    def test_it_learns(self) -> None:
        """Twenty steps on six wholes lower the loss by a tenth."""
        module = self.build()
        optimiser = torch.optim.AdamW(module.parameters(), lr=self.learning_rate)
        losses = self.train(module, optimiser, range(20))
        before, after = np.mean(losses[:5]), np.mean(losses[-5:])
        promise(after < before - 0.1 * abs(before), f"the loss went from {before:.4g} to {after:.4g}")

    def test_a_run_restored_from_its_state_is_the_run(self) -> None:
        """A module restored from its state goes on exactly as the one that was never stopped."""
        module = self.build()
        optimiser = torch.optim.AdamW(module.parameters(), lr=self.learning_rate)
        self.train(module, optimiser, range(2))
        file = io.BytesIO()
        torch.save({"module": module.state_dict(), "optimiser": optimiser.state_dict()}, file)
        self.train(module, optimiser, range(2, 4))
        again = self.build(seed=99)
        other = torch.optim.AdamW(again.parameters(), lr=self.learning_rate)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        again.load_state_dict(state["module"])
        other.load_state_dict(state["optimiser"])
        self.train(again, other, range(2, 4))
        found = again.state_dict()
        for key, value in module.state_dict().items():
            promise(torch.equal(value, found[key]), f"{key} differs; keep what changes in a buffer")

    def test_validating_leaves_the_state_alone(self) -> None:
        """In eval mode the loss is the same each time, and changes nothing in the module."""
        module, views = self.build(), self.views()
        self.spec.loss(module.train(), views)
        before = {key: value.clone() for key, value in module.state_dict().items()}
        module.eval()
        with torch.no_grad():
            first, again = (self.spec.loss(module, views) for _ in range(2))
        for name, scalar in first.items():
            promise(torch.equal(scalar, again[name]), f"{name} is {float(scalar)}, then {float(again[name])}")
        for key, tensor in module.state_dict().items():
            promise(torch.equal(tensor, before[key]), f"{key} has changed")

    def test_rows_are_independent_where_it_says_so(self) -> None:
        """If its rows are independent, the loss of a batch is the mean over its pieces."""
        if not self.spec.rows_are_independent:
            raise SkipTest("its rows see each other")
        module, views = self.build().eval(), self.views()
        with torch.no_grad():
            whole = float(self.spec.loss(module, views)["loss"])
            pieces = list(divide_rows(views, rows=ROWS, parts=4))
            parts = sum(
                count / ROWS * float(self.spec.loss(module, piece)["loss"]) for piece, count in pieces
            )
        close = abs(parts - whole) <= 1e-4 * abs(whole)
        promise(close, f"{whole:.6g} for the batch, {parts:.6g} for its pieces")

    def test_a_reconstruction_is_an_image_of_the_whole(self) -> None:
        """A reconstruction is an image in [0, 1] of the size of the whole."""
        if not isinstance(self.spec, Reconstruction):
            raise SkipTest("it reconstructs nothing")
        part = self.views()["part"]
        with torch.no_grad():
            image = self.spec.reconstruct(self.build(), part)
        promise(image.shape == part.shape, f"shape {tuple(image.shape)} from parts {tuple(part.shape)}")
        low, high = float(image.min()), float(image.max())
        promise(0 <= low <= high <= 1, f"values from {low:.4g} to {high:.4g}")

    def test_guessing_is_what_a_discrimination_can_be_compared_with(self) -> None:
        """A discrimination says among how many candidates it chooses, at least two."""
        if not isinstance(self.spec, Discrimination):
            raise SkipTest("there is nothing to guess")
        found = self.spec.candidates(ROWS)
        promise(found > 1, f"{found} candidates in a batch of {ROWS} wholes")
