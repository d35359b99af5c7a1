"""Pre-training that goes on: from weights, on other scans; or a run, for more steps than were planned."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from parts2whole.errors import Parts2WholeError
from parts2whole.networks.base import Encoder, Network, Own
from parts2whole.scans.volume import Triple
from parts2whole.spec import digest
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task, default_cache
from parts2whole.training.optim import Schedule
from parts2whole.training.transfer import check_contract
from parts2whole.weights.card import Card
from parts2whole.weights.load import load_initialisation


class ContinualError(Parts2WholeError, ValueError):
    """Weights that this pre-training can't go on from, or a run that can't be made longer."""


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What a pre-training begins from.

    Attributes:
        network: builds the encoder; fresh from scratch, else with its weights.
        card: of the weights; None from scratch.
        notes: what the user should know.
    """

    network: Network
    card: Card | None = None
    notes: tuple[str, ...] = ()

    def tell_seen(self, scans: Store, validation: Sequence[str]) -> list[str]:
        """What to know of the validation scans: how many of them the weights have been trained on."""
        if self.card is None:
            return []
        seen, series = set(self.card.seen), set(self.card.series)
        records = [scans.record(case) for case in validation]
        known = [r for r in records if r.hashes() & seen or series & ({r.series, r.case_id} - {""})]
        if not known:
            return []
        return [
            f"the weights of init were trained on {len(known)} of {len(records)} validation scans, so the "
            "validation loss is not that of new scans"
        ]

    def pass_on(self, card: Card) -> Card:
        """The card of what was trained from these weights: it has also seen what they have seen."""
        before = self.card
        if before is None:
            return card
        seen = tuple(sorted({*card.seen, *before.seen}))
        return dataclasses.replace(
            card,
            seen=seen,
            fingerprint=digest(list(seen)),
            series=tuple(sorted({*card.series, *before.series})),
            licence=before.licence,
            citation="; ".join(dict.fromkeys(text for text in (card.citation, before.citation) if text)),
            begun_from={
                "method": before.method,
                "steps": before.steps,
                "fingerprint": before.fingerprint,
                "origin": before.origin,
                "fetched": before.fetched,
                "begun_from": before.begun_from,
            },
        )


def begin_from(
    init: str | Path,
    network: Network,
    scans: Store,
    *,
    held_out: Task | None,
    shown_mm: Triple | None = None,
) -> Beginning:
    """Load the weights that ``init`` names, and check them against network and scans.

    Args:
        init: ``scratch``, a run or weights folder, ``hf:OWNER/NAME``, or ``SOURCE:PATH``.
        network: of the encoder.
        scans: what will be trained on.
        held_out: a target task whose validation and test scans the weights must not have seen.
        shown_mm: spacing (z, y, x) at which wholes are shown; default that of the store.

    Raises:
        ContinualError: they are of another network, or have seen scans of ``held_out``.
        parts2whole.training.transfer.TransferError: they are for other channels or another window.
        parts2whole.weights.native.WeightsError: ``init`` names no usable weights.
    """
    found = load_initialisation(init)
    if found is None:
        return Beginning(network)
    if found.card.network != network:
        raise ContinualError(
            f"the weights of {init} are of {found.card.network}, not of {network}; give their network"
        )
    found = found.adapt(scans.cases[0].channels)
    mend = "prepare the scans with the --window-hu of the weights"
    notes = check_contract(found.card, scans, None, whose="this store", mend=mend, shown_mm=shown_mm)
    if held_out is not None:
        leaked = held_out.held_out_hashes(cache=default_cache()) & set(found.card.seen)
        if leaked:
            raise ContinualError(
                f"the weights of {init} were trained on {len(leaked)} scans of the held-out task: begin from "
                "scratch, or from weights that were pre-trained with the same --held-out"
            )
    return Beginning(_Loaded(network, found.encoder), found.card, tuple(notes))


def check_longer(schedule: Schedule, planned: int, steps: int) -> None:
    """Raise `ContinualError` unless a run planned for fewer steps is the beginning of one of ``steps``."""
    if steps < planned:
        raise ContinualError(
            f"the run was planned for {planned} steps and can't be made shorter, got {steps}"
        )
    for rate in (schedule.factor, schedule.encoder_factor):
        if any(rate(n, steps=planned, values=()) != rate(n, steps=steps, values=()) for n in range(planned)):
            raise ContinualError(
                f"the run was planned for {planned} steps, and {type(schedule).__name__} divides its rates "
                f"over them: a run of {steps} steps would have begun otherwise. Begin a new run from its "
                "weights with --init; schedules that don't look ahead (Constant, Plateau) can be made longer"
            )


@dataclasses.dataclass(frozen=True)
class _Loaded(Network):
    """A network whose encoders have weights."""

    network: Network
    encoder: Encoder

    def build_encoder(self, in_channels: int) -> Encoder:
        return copy.deepcopy(self.encoder)

    def build_own(self, in_channels: int, out_channels: int) -> Own | None:
        return self.network.build_own(in_channels, out_channels)
