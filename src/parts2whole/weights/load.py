"""From what a user calls an initialisation to an encoder and its card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from parts2whole.networks.base import Encoder, Own
from parts2whole.networks.published import NamedEncoder, WholeNetwork
from parts2whole.spec import discover
from parts2whole.weights.base import WeightsError, WeightSource
from parts2whole.weights.card import Card
from parts2whole.weights.convert import adapt_state, convert
from parts2whole.weights.hub import fetch, parse_hub
from parts2whole.weights.native import Native, load_native

SCRATCH = "scratch"


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """An encoder to start from.

    Attributes:
        encoder: with its weights.
        card: that came with it.
        own: state of the decoder or head it was published with, if any.
        decoder: state of the decoder it was pre-trained with here, if any.
    """

    encoder: Encoder
    card: Card
    own: dict[str, Tensor]
    decoder: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def adapt(self, in_channels: int) -> Initialisation:
        """For data with another number of channels, where the card has a policy for that."""
        old = self.card.in_channels
        if in_channels == old or not self.card.stem:
            return self
        policy = self.card.stem
        axes = self.encoder.input_axes
        state = adapt_state(self.encoder.state_dict(), axes, old=old, new=in_channels, policy=policy)
        own = self.own
        if own:
            axes = self._build_own(old, self.own_classes).input_axes
            own = adapt_state(own, axes, old=old, new=in_channels, policy=policy)
        card = dataclasses.replace(self.card, in_channels=in_channels)
        return dataclasses.replace(assemble(card, state, own), decoder=self.decoder)

    @property
    def own_classes(self) -> int:
        """Output channels of the decoder or head in the file; 0 where it has none."""
        return int(self.card.origin.get("own_classes") or 0)

    def load_own(self) -> Own | None:
        """The decoder or head in the file, as it is; None where there is none."""
        if not self.own:
            return None
        own = self._build_own(self.card.in_channels, self.own_classes)
        own.load_state_dict(self.own, strict=True)
        return own

    def _build_own(self, in_channels: int, classes: int) -> Own:
        own = self.card.network.build_own(in_channels, classes)
        if own is None:
            raise WeightsError(f"{self.card.network} has no decoder or head of its own, but the weights do")
        return own


def assemble(card: Card, state: dict[str, Tensor], own: dict[str, Tensor]) -> Initialisation:
    """Build the encoder a card describes and load its tensors, every one of them.

    Raises:
        WeightsError: tensors don't match the card.
    """
    encoder = card.network.build_encoder(card.in_channels)
    try:
        encoder.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).partition("\n")[2].split()) or str(error)
        raise WeightsError(
            f"the encoder's tensors don't match their card, which says {card.network}: {reason[:300]}"
        ) from error
    return Initialisation(encoder, card, own)


def load_initialisation(init: str | Path, *, using: WeightSource | None = None) -> Initialisation | None:
    """The encoder that ``init`` names; None for ``"scratch"``.

    Args:
        init: ``scratch``, a run or weights folder, ``hf:OWNER/NAME[@REVISION]`` on a hub, or ``SOURCE:PATH``
            of published weights.
        using: the source with other settings than its defaults.

    Raises:
        WeightsError: there is nothing of that name, or it is damaged.
    """
    if str(init) == SCRATCH:
        return None
    named = parse_source(init, using=using)
    if named is not None:
        converted = convert(named.source, named.path)
        return assemble(converted.card, converted.encoder, converted.own)
    native = open_native(init)
    start = assemble(native.card, native.encoder, native.own)
    return dataclasses.replace(start, decoder=native.decoder)


def open_native(init: str | Path) -> Native:
    """What is in a run folder, a weights folder, or ``hf:OWNER/NAME[@REVISION]``.

    Raises:
        WeightsError: there are no weights, or they are damaged.
    """
    name = parse_hub(init)
    if name is not None:
        fetched = fetch(name)
        native = load_native(fetched.folder)
        card = dataclasses.replace(native.card, fetched=str(fetched.name))
        return dataclasses.replace(native, card=card)
    if not Path(init).exists():
        raise WeightsError(
            f'{init} doesn\'t exist; give "scratch", a run folder, a weights folder, hf:OWNER/NAME, or '
            f"SOURCE:PATH with one of the sources {', '.join(sources())}"
        )
    return load_native(Path(init))


def load_encoder(
    source: str | Path, *, in_channels: int | None = None, using: WeightSource | None = None
) -> Encoder:
    """The pre-trained encoder of a run or weights folder, or of published weights, in eval mode.

    Args:
        source: a run folder, a weights folder, ``hf:OWNER/NAME[@REVISION]``, or ``SOURCE:PATH``, such as
            ``medicalnet:resnet_10.pth``.
        in_channels: number of input channels, for published weights; default: as they were trained.
        using: the source with other settings than its defaults.

    Returns:
        A module that maps (B, C, D, H, W) in [0, 1] to a tuple of feature maps, finest first. Published
        weights also have ``forward_endpoints``; see `parts2whole.networks.published.WholeNetwork`.

    Raises:
        WeightsError: there are no weights, or they are damaged, or don't take so many channels.
    """
    found = load_initialisation(source, using=using)
    if found is None:
        raise WeightsError('"scratch" has no weights; build one with a network\'s build_encoder')
    if in_channels is not None:
        found = found.adapt(in_channels)
        if found.card.in_channels != in_channels:
            raise WeightsError(f"{source} takes {found.card.in_channels} input channels, not {in_channels}")
    if found.card.origin and isinstance(found.encoder, NamedEncoder):
        return WholeNetwork(found.encoder, found.load_own()).eval()
    return found.encoder.eval()


@dataclasses.dataclass(frozen=True)
class Named:
    """A source and the file of its weights."""

    source: WeightSource
    path: Path


def parse_source(text: str | Path, *, using: WeightSource | None = None) -> Named | None:
    """``SOURCE:PATH`` in its two parts; None where it names no source or is a path that exists.

    Raises:
        WeightsError: ``using`` is another source.
    """
    prefix, colon, path = str(text).partition(":")
    known = sources()
    if not colon or prefix not in known or Path(text).exists():
        return None
    if using is not None and using.prefix != prefix:
        raise WeightsError(f"{text} is of {prefix}, but using is {type(using).__name__}")
    return Named(using or known[prefix](), Path(path).expanduser())


def sources() -> dict[str, type[WeightSource]]:
    """Every source of published weights by what stands before the colon."""
    found = discover(WeightSource, "parts2whole.weights")  # type: ignore[type-abstract]
    return {source.prefix: source for source in sorted(found.values(), key=lambda source: source.prefix)}
