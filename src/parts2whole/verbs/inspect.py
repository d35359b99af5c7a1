"""Look at scans before preparing them: what is there, what is wrong with it, and which settings suit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from parts2whole.errors import Parts2WholeError
from parts2whole.files import write_text
from parts2whole.scans.layout import is_labelled
from parts2whole.scans.read import ReadError
from parts2whole.survey.page import to_html
from parts2whole.survey.propose import Target
from parts2whole.survey.survey import Survey, survey_scans
from parts2whole.survey.table import to_csv, to_json, to_text
from parts2whole.survey.targets import look_inside

WRITERS = {".csv": to_csv, ".html": to_html, ".json": to_json}


class InspectError(Parts2WholeError, ValueError):
    """Paths without scans, or a file that can't be written."""


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found, the file it was written to, and what couldn't be looked at."""

    survey: Survey
    out: Path | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """A table of everything for a terminal; only what stands out, if the table was written to a file."""
        text = to_text(self.survey, rows=self.out is None)
        text = "\n".join([text, *(f"Note: {note}" for note in self.notes)])
        return text if self.out is None else f"{text}\nEverything: {self.out}"


def inspect(
    paths: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    thumbnails: bool = True,
    progress: bool = True,
) -> Inspection:
    """List scans and label maps with their facts, duplicates and problems, and propose settings for them.

    Nothing is changed or prepared.  Patient ids and series UIDs of DICOM appear as salted hashes only.

    Args:
        paths: folders (searched with subfolders), files, globs, or ``.txt`` lists of paths.
        out: write the table to this file: ``.csv``, ``.html`` or ``.json``.
        thumbnails: show small middle slices, of the first thousand scans, in the HTML.
        progress: show a progress bar.

    Returns:
        The survey; `Inspection.summary` is its text.

    Raises:
        InspectError: nothing found, or an unknown kind of file.
    """
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    target = None if out is None else Path(out)
    if target is not None and target.suffix not in WRITERS:
        raise InspectError(f"{target.name}: expected a name ending in {', '.join(WRITERS)}")
    pictures = thumbnails and target is not None and target.suffix == ".html"
    try:
        targets, notes = find_targets(named, progress=progress)
        survey = survey_scans(named, targets=targets, pictures=pictures, progress=progress)
    except ReadError as error:
        raise InspectError(str(error)) from error
    if not survey.entries:
        raise InspectError(f"no scans found in {', '.join(map(str, named)) or 'an empty list'}")
    if target is not None:
        write_text(target, WRITERS[target.suffix](survey))
    return Inspection(survey, target, notes)


def find_targets(
    paths: Sequence[str | Path], *, progress: bool = False
) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    """What is labelled in those of the folders that are labelled data, and why it can't be said of others."""
    targets: list[Target] = []
    notes: list[str] = []
    for folder in filter(is_labelled, map(Path, paths)):
        from parts2whole.tasks.labelled import TaskError
        from parts2whole.tasks.segmentation import Segmentation  # takes seconds, as torch comes with it

        try:
            task = Segmentation(folder)
            targets += look_inside(task.sources().cases, ignored=task.ignored_value, progress=progress)
        except TaskError as error:
            notes.append(f"labels were not looked inside: {error}")
    return tuple(targets), tuple(notes)
