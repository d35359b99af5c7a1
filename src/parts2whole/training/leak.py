"""The leak guard: cases a result is reported on that the encoder, or the model, has already seen.

Weights carry the hash of every scan they were trained on (`parts2whole.scans.volume.content_hash`: the voxel
values in canonical orientation, before any preprocessing).  So a copy is recognised in another file format,
axis order or number type; a copy that was cropped, resampled or rescaled is not.  Where series UIDs were kept
by `prepare`, they are compared too, and find those.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from parts2whole.errors import Parts2WholeError, name_some

if TYPE_CHECKING:
    from parts2whole.tasks.labelled import LabelledData

ACCEPTANCE = "I know that training saw these cases"
"""What a user must write to go on all the same."""
WAYS_OUT = (
    "Pre-train again with --held-out and this task, use other weights, or go on with --accept-leak "
    f'"{ACCEPTANCE}"; the result is then marked'
)


class LeakError(Parts2WholeError, ValueError):
    """Cases to be reported on were trained on."""


def find_leaks(
    labelled: LabelledData, items: Sequence[str], *, seen: Collection[str], series: Collection[str] = ()
) -> tuple[str, ...]:
    """Cases of ``items`` among the scans that were trained on, sorted.

    Args:
        labelled: the cases.
        items: what a result is chosen or reported on.
        seen: content hashes of the scans trained on.
        series: series UIDs, or hashes of them, of the scans trained on.
    """
    hashes, uids = frozenset(seen), frozenset(series) - {""}
    cases = sorted({labelled.item(item).case_id for item in items})
    records = [labelled.store.record(case) for case in cases]
    return tuple(r.case_id for r in records if r.hashes() & hashes or uids & {r.series, r.case_id})


def hashes_of(labelled: LabelledData, items: Sequence[str]) -> tuple[str, ...]:
    """Content hashes of the scans of some items, sorted."""
    cases = {labelled.item(item).case_id for item in items}
    return tuple(sorted({found for case in cases for found in labelled.store.record(case).hashes()}))


def check_leaks(leaks: Sequence[str], *, accept_leak: str | None, where: str) -> str | None:
    """Stop where cases have leaked, unless the user has accepted it in so many words.

    Returns:
        The mark that the result must carry; None without a leak.

    Raises:
        LeakError: there is a leak, and it isn't accepted.
    """
    if accept_leak is not None and accept_leak != ACCEPTANCE:
        raise LeakError(f'accept_leak must be exactly "{ACCEPTANCE}", got {accept_leak!r}')
    if not leaks:
        return None
    seen = f"{len(leaks)} {'' if where == 'all' else f'{where} '}cases were seen in training"
    if accept_leak is None:
        raise LeakError(f"{seen}, so a result on them would flatter it: {name_some(leaks, 20)}. {WAYS_OUT}")
    return f"LEAK, accepted: {seen}: {name_some(leaks, 20)}"
