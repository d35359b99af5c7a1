"""What every source of published weights promises."""

from __future__ import annotations

import string
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import torch

from parts2whole.contracts.base import Contract, promise
from parts2whole.weights.base import WeightsError, WeightSource
from parts2whole.weights.convert import Converted, convert
from parts2whole.weights.files import read_tensors
from parts2whole.weights.load import assemble, sources


class WeightSourceContract(Contract):
    """Promises of a source of published weights.

    Attributes:
        published: a file as its source publishes it; without one, some promises are not asked.
    """

    family = WeightSource
    spec: WeightSource
    published: ClassVar[Path | None] = None

    def convert(self) -> Converted:
        """The published file, converted."""
        if self.published is None:
            raise SkipTest("there is no published file to try it on; name one")
        return convert(self.spec, self.published)

    def test_its_prefix_is_a_word_of_its_own(self) -> None:
        """What stands before the colon of SOURCE:PATH is a lower-case word that no other source has."""
        prefix = type(self.spec).prefix
        allowed = string.ascii_lowercase + string.digits + "_"
        promise(len(prefix) > 1 and set(prefix) <= set(allowed), f"prefix {prefix!r} is no lower-case word")
        other = sources().get(prefix, self.member)
        promise(other is self.member, f"prefix {prefix!r} is that of {other.__name__}")

    def test_a_first_layer_is_changed_in_three_ways_only(self) -> None:
        """Another policy for the first layer than sum, mean or repeat is refused."""
        for stem in ("sum", "mean", "repeat"):
            self.spec.replace(stem=stem)
        try:
            self.spec.replace(stem="first")
        except WeightsError:
            return
        promise(False, "stem='first' is accepted")

    def test_axes_are_named_once_each(self) -> None:
        """The axes of its kernels are z, y and x in some order."""
        promise(
            sorted(self.spec.trained_axes) == ["x", "y", "z"], f"trained_axes is {self.spec.trained_axes!r}"
        )

    def test_other_tensors_match_nothing_and_are_named(self) -> None:
        """A file of other weights is refused by a WeightsError that names its tensors."""
        file = self.folder / "other.pth"
        torch.save({"somebody.elses.weight": torch.zeros(3)}, file)
        try:
            convert(self.spec, file)
        except WeightsError as error:
            promise("somebody.elses.weight" in str(error), f"the error doesn't name the tensor: {error}")
            return
        promise(False, "tensors of another network are accepted")

    def test_every_name_has_a_destination_or_a_reason(self) -> None:
        """Any tensor's name has a destination, or a reason why it is left out."""
        for name in ("weight", "a.b.c", "global_step", "module.x/Adam:0"):
            found = self.spec.destination(name)
            said = bool(found) if isinstance(found, str) else found.target.startswith(("encoder.", "own."))
            promise(said, f"{found!r} for {name!r}")

    def test_every_tensor_of_the_file_is_accounted_for(self) -> None:
        """Every tensor of a published file is in the report once, and none goes where another went."""
        report = self.convert().report
        assert self.published is not None
        there = sorted(read_tensors(self.published))
        said = sorted(entry.source for entry in report.entries if entry.source)
        promise(said == there, f"the file has {len(there)} tensors, the report {len(said)}")
        targets = [entry.target for entry in report.entries if entry.target]
        promise(len(targets) == len(set(targets)), "two tensors have one destination")

    def test_its_card_says_where_the_weights_are_from(self) -> None:
        """The card says title, citation, licence, where the file is from, and what it expects."""
        card = self.convert().card
        said = {"citation": card.citation, "licence": card.licence, **card.origin}
        for key in ("citation", "licence", "title", "where", "trained_on", "expects", "axes"):
            promise(said.get(key), f"{key} is empty")

    def test_the_encoder_gives_features(self) -> None:
        """The encoder of a published file gives finite features, and takes another number of channels."""
        converted = self.convert()
        start = assemble(converted.card, converted.encoder, converted.own)
        for channels in (converted.card.in_channels, converted.card.in_channels + 1):
            encoder = start.adapt(channels).encoder.eval()
            with torch.no_grad():
                pyramid = encoder(torch.rand(1, channels, *(2 * encoder.divisor,) * 3))
            finite = all(bool(torch.isfinite(level).all()) for level in pyramid)
            promise(finite, f"with {channels} input channels there are features that are not finite")
