"""The base of all families of errors, and what a user is told of an error, or of many that are alike."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Mapping, Sequence

REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable for you",
}
RAISED = "raised by "


class Parts2WholeError(Exception):
    """Base of every error of this package; its message says what is wrong, and how to mend it."""


def sentence(error: BaseException) -> str | None:
    """What a user is told of an error; None for a bug of this package, whose traceback must be seen.

    Errors of this package and of the file system say what to do.  A mistake in a method, network, task or
    other class of the user's own is told by that class, the file and the line.
    """
    if isinstance(error, Parts2WholeError):
        return str(error)
    if isinstance(error, OSError):
        remedy = REMEDIES.get(error.errno or 0)
        again = f"; {remedy}, then run it again (a run goes on with --resume true)" if remedy else ""
        return f"{error}{again}"
    note_place(error)
    for note in getattr(error, "__notes__", ()):
        if note.startswith(RAISED):
            what = " ".join(f"{type(error).__name__}: {error}".split())
            return f"{what}, {note}; PARTS2WHOLE_TRACEBACK=1 shows how it came to that"
    return None


def tell_failure(error: BaseException) -> str:
    """Why one scan of many can't be used, whatever went wrong: one odd scan must not end the run."""
    if is_out_of_memory(error):
        return "not enough memory for it"
    return sentence(error) or f"unexpected {type(error).__name__}: {error}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def name_some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def plural(number: int, noun: str) -> str:
    """``1 scan``, ``2,000 scans``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def group_reasons(reasons: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Names by their reason: those whose reasons differ in nothing but names, paths and numbers, together.

    Args:
        reasons: why something can't be used, by its name.

    Returns:
        The reason of every group; where it isn't the same to the letter, that of the first, as an example.
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        plain = re.sub(r"\S*/\S*", "/", reason.replace(name, "*"))
        groups.setdefault(re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", plain), []).append(name)
    return {
        tuple(names): ("" if len({reasons[name] for name in names}) == 1 else "for example, ")
        + reasons[names[0]]
        for names in groups.values()
    }


def tell_reasons(reasons: Mapping[str, str], *, of: int, verb: str = "were set aside") -> list[str]:
    """A line for every reason, with the names it holds for.

    Args:
        reasons: by name.
        of: how many there are with those that have no reason.
        verb: what became of them.
    """
    return [
        f"{names[0]} {verb.replace('were', 'was')}: {reason}"
        if len(names) == 1
        else f"{len(names)} of {of} {verb}: {reason} ({name_some(names)})"
        for names, reason in group_reasons(reasons).items()
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of an accelerator; torch says both as a `RuntimeError`.

    cuBLAS and cuDNN say it in their own words; where no way to compute a convolution gets its workspace,
    torch says that it found none at all.
    """
    said = (
        "out of memory",
        "not enough memory",
        "can't allocate memory",
        "_STATUS_ALLOC_FAILED",
        "unable to find an engine to execute this computation",
    )
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def note_place(error: BaseException) -> None:
    """Note on an error which of the user's own classes raised it, and where, if one did.

    A file is the user's own if it derives a class from one of this package.  Notes, unlike tracebacks, go
    from process to process.
    """
    found = owner = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if any(map(_is_own, list(frame.f_globals.values()))):
            here = frame.f_locals.get("self", frame.f_locals.get("cls"))
            kind = here if isinstance(here, type) else type(here)
            if _is_own(kind) or kind.__module__ == frame.f_globals["__name__"]:
                owner = kind.__name__
            found = f"{owner or frame.f_code.co_name} ({frame.f_code.co_filename}, line {line})"
    if found and not any(note.startswith(RAISED) for note in getattr(error, "__notes__", ())):
        error.add_note(RAISED + found)


def _is_own(value: object) -> bool:
    """Whether something is a class that lies outside this package and derives from one of its."""
    return isinstance(value, type) and not _is_ours(value) and any(map(_is_ours, value.__mro__))


def _is_ours(kind: type) -> bool:
    module = str(kind.__module__)
    return module.partition(".")[0] == __package__ and not module.startswith(f"{__package__}.own.")
