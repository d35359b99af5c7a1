"""File names of BraTS, edition by edition: which files make up a case, and what its labels mean.

- 2013: ``VSD.Brain.XX.O.MR_Flair.N.mha`` (also T1, T1c, T2) and ``VSD.Brain_3more.XX.O.OT.N.mha``; labels
  1 and 3 are core, 2 oedema, 4 enhancing.
- 2017 to 2021: ``<case>_flair.nii[.gz]`` (also t1, t1ce, t2, seg); 1 core, 2 oedema, 4 enhancing.
- 2023: ``<case>-t2f.nii.gz`` (also t1n, t1c, t2w, seg); 1 core, 2 oedema, 3 enhancing.
- ``BraTS-PED-...``, named alike: in 2023 as above, in 2024 1 enhancing, 2 non-enhancing, 3 cystic, 4 oedema,
  and nothing in the files says which; so only the whole tumour is known.

In 2020 the reference of case 355 is called ``W39_1998.09.19_Segm.nii``.  In 2013 every file lies in a folder
of its own below the case's folder.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from parts2whole.scans.case import IngestError, LabelSource
from parts2whole.scans.read import read_label
from parts2whole.scans.volume import LabelVolume, Volume

MODALITIES = ("t1", "t2", "t1ce", "flair")
"""Order of the channels, as in the public code of Models Genesis."""

OEDEMA, CORE, ENHANCING = 1, 2, 3
"""Class indices of the three parts of a tumour, which exclude each other."""

CHILDREN = "PED"
"""The edition of children's tumours, whose labels mean other things from year to year."""

LABELS = {
    "2013": {1: CORE, 2: OEDEMA, 3: CORE, 4: ENHANCING},
    "2017-2021": {1: CORE, 2: OEDEMA, 4: ENHANCING},
    "2023": {1: CORE, 2: OEDEMA, 3: ENHANCING},
    CHILDREN: dict.fromkeys((1, 2, 3, 4), CORE),
}
"""What each label value of an edition is."""

_OLD = re.compile(r"VSD\.Brain.*\.(MR_Flair|MR_T1c|MR_T1|MR_T2|OT)\.\d+\.mha", re.IGNORECASE)
_MIDDLE = re.compile(r"(.+)_(flair|t1ce|t1|t2|seg)\.nii(?:\.gz)?", re.IGNORECASE)
_NEW = re.compile(r"(.+)-(t2f|t1c|t1n|t2w|seg)\.nii(?:\.gz)?", re.IGNORECASE)
_MISNAMED = re.compile(r".*_Segm\.nii(?:\.gz)?")
_PARTS = {
    **{"mr_flair": "flair", "mr_t1": "t1", "mr_t1c": "t1ce", "mr_t2": "t2", "ot": "seg"},
    **{"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t2w": "t2"},
}


@dataclasses.dataclass(frozen=True)
class BratsCase:
    """The files of one case, by ``t1``, ``t2``, ``t1ce``, ``flair`` and ``seg``; what is wrong with them."""

    name: str
    edition: str
    files: dict[str, Path]
    problem: str = ""

    @property
    def patient(self) -> str:
        """Who it is: in 2023, and before 2020, names end with the number of the visit."""
        if self.edition in ("2023", CHILDREN):
            return re.sub(r"-\d{3}$", "", self.name)
        visit = re.search(r"(brats_(?:tcia|2013)_pat\d+)_\d+$", self.name, re.I)
        if visit:  # of 2012 to 2015, whatever the grade of a visit is
            return visit[1]
        return re.sub(r"_\d+$", "", self.name) if re.match(r"Brats1[789]_", self.name, re.I) else self.name


@dataclasses.dataclass(frozen=True)
class BratsLabel(LabelSource):
    """A reference of any edition, stored with the same values: oedema, core, enhancing."""

    path: Path
    edition: str

    def files(self) -> tuple[Path, ...]:
        """The reference file."""
        return (self.path,)

    def read(self, scan: Volume) -> LabelVolume:
        """The three parts as 1, 2, 3.

        Raises:
            IngestError: a value that the edition doesn't have.
        """
        label = read_label(self.path)
        meaning = {0: 0} | LABELS[self.edition]
        parts = np.zeros(label.array.shape, np.uint8)
        for value in np.unique(label.array).tolist():
            if value not in meaning:
                raise IngestError(
                    f"{self.path.name} holds label {value}; BraTS {self.edition} has {sorted(meaning)}"
                )
            parts[label.array == value] = meaning[value]
        return dataclasses.replace(label, array=parts)


def find_cases(paths: list[Path]) -> list[BratsCase]:
    """Cases among files, sorted by name; files that follow no naming are passed over."""
    found: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    unnamed: list[Path] = []
    twice: dict[tuple[str, str], str] = {}
    for path in paths:
        name, edition, part = _read_name(path)
        if part:
            first = found[name, edition].setdefault(part, path)
            if first != path:
                twice[name, edition] = f"{first.name} and {path.name} are both its {part}: keep one of them"
        elif _MISNAMED.fullmatch(path.name):
            unnamed.append(path)
    for path in unnamed:
        case = found.get((path.parent.name, "2017-2021"))
        if case is not None:
            case.setdefault("seg", path)
    return [BratsCase(*key, files, twice.get(key, "")) for key, files in sorted(found.items())]


def _read_name(path: Path) -> tuple[str, str, str]:
    """Case, edition and part that a file's name says; an empty part if none."""
    old = _OLD.fullmatch(path.name)
    if old:
        return _old_case(path), "2013", _PARTS[old[1].lower()]
    for pattern, edition in ((_NEW, "2023"), (_MIDDLE, "2017-2021")):
        match = pattern.fullmatch(path.name)
        if match and not path.name.startswith("."):
            part = match[2].lower()
            if edition == "2023":
                children = match[1].upper().startswith("BRATS-PED-")
                return match[1], CHILDREN if children else edition, _PARTS.get(part, part)
            return match[1], edition, part
    return "", "", ""


def _old_case(path: Path) -> str:
    """Grade and number of a 2013 case, from its folders: ``HG/0001/VSD.../VSD....mha`` is ``HG-0001``."""
    case = path.parent.parent if path.parent.name.startswith("VSD.") else path.parent
    return f"{case.parent.name}-{case.name}"
