"""Pulmonary embolism false positive reduction, a public stand-in for the poster's ECC.

The poster's data set, PE-CAD, is private, and so are its candidates.  This task is **not** that task: its
candidates are made from public reference masks (`parts2whole.tasks.emboli`), so its numbers can't be put
beside the poster's.

    CAD-PE/   images/CT001.nrrd and rs/CT001RefStd.nrrd (or 001.nrrd, 001RefStd.nrrd); one integer an embolus
    FUMPE/    CT_scans/PAT001/*.dcm and GroundTruth/PAT001.mat
    RSNA-STR/ train/<study>/<series>/*.dcm and train.csv: labels of whole examinations, so there the task is
              to tell whether an examination shows an embolism, from the whole volume

Data: https://ieee-dataport.org/open-access/cad-pe, Masoudi et al. 2018, Scientific Data 5, 180180 (FUMPE),
Colak et al. 2021, Radiology AI 3, e200254 (RSNA-STR).  Input size and shares of the split that are defaults
here come from the public code of Models Genesis (https://github.com/MrGiovanni/ModelsGenesis,
keras/downstream_tasks), not from the Parts2Whole paper.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from parts2whole.errors import name_some, tell_reasons
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import ScanSource, find_scans
from parts2whole.scans.volume import Size, Volume, content_hash
from parts2whole.store.ingest import SourceCase, store_cases
from parts2whole.store.record import OWN_IDS
from parts2whole.store.store import Store
from parts2whole.tasks.candidates import CLASSES, CandidateTask, read_points
from parts2whole.tasks.derived import Rows, derive
from parts2whole.tasks.emboli import BONE_HU, LUNG_HU, CandidateRules, FumpeLabel, negatives
from parts2whole.tasks.labelled import PUBLIC_SALT, Item, LabelledData, TaskError
from parts2whole.wholes.random import sample_generator

EXAM_CLASSES = ("no_embolism", "embolism")
EXAM_COLUMNS = ("StudyInstanceUID", "SeriesInstanceUID", "negative_exam_for_pe", "indeterminate")


@dataclasses.dataclass(frozen=True)
class _Found:
    """What a data set holds: scans, why others are left out, and exam targets where it has them."""

    cases: list[SourceCase]
    set_aside: dict[str, str]
    numbered: bool = False
    targets: dict[str, int] | None = None


@dataclasses.dataclass(frozen=True)
class EmbolismFalsePositives(CandidateTask):
    """Candidates for pulmonary embolism in CT angiography; patches of 64 x 64 x 64 voxels.

    Attributes:
        validation_fraction: the public code has 4 of 117 patients, too few to choose by; here one in ten.
        test_fraction: a third, 39 of 117 patients.
        per_embolus: positives in each embolus at most.
        negatives_per_scan: vessel-like places without embolus in each scan at most.
        away_mm: least distance of a negative from every embolus.
        vessel_hu: range of a contrast-enhanced vessel.
        smallest_mm3: smaller emboli are left out.
    """

    preprocess: Preprocess = Preprocess(modality="CT")
    patch_size: Size = (64, 64, 64)
    validation_fraction: float = 0.1
    test_fraction: float = 1 / 3
    per_embolus: int = 2
    negatives_per_scan: int = 40
    away_mm: float = 20.0
    vessel_hu: tuple[float, float] = (100.0, 600.0)
    smallest_mm3: float = 10.0

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Three vessels through lung, as CAD-PE has it, with emboli in the first."""
        from parts2whole.phantom.example import write_angiograms

        return cls(
            write_angiograms(folder),
            patch_size=(16, 16, 16),
            hidden=8,
            away_mm=10,
            validation_fraction=0.25,
            test_fraction=0.25,
        )

    def labelled(self, *, cache: Path, workers: int | None = None, progress: bool = True) -> LabelledData:
        """Prepare the scans once into ``cache``, and make or open their candidates."""
        found = self._find(Path(self.data))
        store, report = store_cases(
            self.tell_patients(found.cases),
            self.cache_folder(cache),
            preprocess=self.preprocess,
            workers=workers,
            progress=progress,
        )
        reasons = found.set_aside | report.set_aside
        notes = tell_reasons(reasons, of=len({*reasons, *(case.case_id for case in found.cases)}))
        if not store.cases:
            raise TaskError(f"no usable scan in {self.data}. " + "; ".join(notes[:5]))
        if found.targets is not None:
            exams = tuple(
                Item(r.case_id, r.case_id, r.patient, target=found.targets[r.case_id])
                for r in store.cases
                if r.case_id in found.targets
            )
            return LabelledData(store, exams, EXAM_CLASSES, tuple(notes))
        rules = self.rules(numbered=found.numbered)
        settings = dataclasses.asdict(rules)
        rows = derive(store, rules, name="candidates", settings=settings, workers=workers)
        return self._with_candidates(store, rows, notes)

    def rules(self, *, numbered: bool) -> CandidateRules:
        """How candidates are made.

        Raises:
            TaskError: the window of the preprocessing shows neither lung nor bone as such.
        """
        low, high = self.preprocess.window_hu
        if low >= LUNG_HU or high <= BONE_HU:
            raise TaskError(
                f"candidates are told by lung (below {LUNG_HU:g} HU) and bone (above {BONE_HU:g} HU), which "
                f"can't be told in a window from {low:g} to {high:g} HU: give another "
                "--task.preprocess.window-hu, and weights of it"
            )
        return CandidateRules(
            per_embolus=self.per_embolus,
            per_scan=self.negatives_per_scan,
            away_mm=self.away_mm,
            vessel_hu=self.vessel_hu,
            smallest_mm3=self.smallest_mm3,
            numbered=numbered,
            window_hu=self.preprocess.window_hu,
        )

    def propose(self, volume: Volume) -> npt.NDArray[np.float64]:
        """Vessel-like places of a new scan, as they are made for training."""
        rules = self.rules(numbered=False)
        nothing = np.zeros(volume.shape, np.bool_)
        generator = sample_generator("vessels", content_hash(volume.array))
        rows = negatives(rules.in_hu(volume), nothing, rules, generator)
        return np.array([row["centre"] for row in rows], dtype=np.float64).reshape(-1, 3)

    def _with_candidates(self, store: Store, rows: dict[str, Rows], notes: list[str]) -> LabelledData:
        items: list[Item] = []
        for case, found in rows.items():
            patient = store.record(case).patient
            for number, row in enumerate(found):
                lesion = (f"{case}-embolus-{row['embolus']}",) if row["embolus"] else ()
                z, y, x = (float(value) for value in row["centre"])
                name = f"{case}-candidate-{number:04d}"
                items.append(Item(name, case, patient, int(bool(lesion)), None, (z, y, x), lesion))
        if not any(item.target for item in items):
            raise TaskError(f"no scan in {self.data} has an embolus of {self.smallest_mm3:g} mm3 or more")
        if all(item.target for item in items):
            raise TaskError(
                f"no vessel-like place was found in the scans of {self.data}: check that values are "
                f"Hounsfield units, and vessel_hu {self.vessel_hu}"
            )
        bare = [case for case, found in rows.items() if not found]
        if bare:
            notes.append(f"{len(bare)} scans have no candidates and count nowhere: {name_some(bare)}")
        lesions = {
            case: tuple(dict.fromkeys(f"{case}-embolus-{r['embolus']}" for r in found if r["embolus"]))
            for case, found in rows.items()
        }
        return LabelledData(store, tuple(items), CLASSES, tuple(notes), lesions)

    def _find(self, root: Path) -> _Found:
        """What kind of data set it is, and its scans."""
        if not root.is_dir():
            raise TaskError(f"{root} is not a folder")
        if (root / "train.csv").exists():
            return _rsna(root)
        if (root / "GroundTruth").is_dir():
            return _fumpe(root)
        found = _cad_pe(root)
        if not found.cases:
            raise TaskError(
                f"{root} is none of the known data sets: CAD-PE (CT001.nrrd with CT001RefStd.nrrd), FUMPE "
                "(CT_scans/, GroundTruth/) or RSNA-STR (train/, train.csv). "
                f"{name_some(_words(found))}".rstrip()
            )
        return found


def _cad_pe(root: Path) -> _Found:
    scans: dict[str, Path] = {}
    references: dict[str, Path] = {}
    for path in sorted(root.rglob("*.nrrd")):
        match = re.fullmatch(r"(?:CT)?(\d+)(RefStd)?", path.stem, re.IGNORECASE)
        if match:
            (references if match[2] else scans)[f"CT{match[1]}"] = path
    cases = [
        SourceCase(case, (scans[case],), references[case], patient=case, patient_by=OWN_IDS)
        for case in sorted(set(scans) & set(references))
    ]
    set_aside = dict.fromkeys(sorted(set(scans) - set(references)), "no reference (RefStd)")
    set_aside |= dict.fromkeys(sorted(set(references) - set(scans)), "a reference without a scan")
    return _Found(cases, set_aside, numbered=True)


def _fumpe(root: Path) -> _Found:
    cases: list[SourceCase] = []
    set_aside: dict[str, str] = {}
    for folder in sorted(path for path in (root / "CT_scans").glob("*") if path.is_dir()):
        reference = root / "GroundTruth" / f"{folder.name}.mat"
        series = [source for source in find_scans([folder], salt=PUBLIC_SALT) if source.is_series]
        usable = [source for source in series if source.problem is None]
        if not reference.exists():
            set_aside[folder.name] = f"{reference.name} is missing in GroundTruth"
        elif len(usable) != 1:
            problems = "; ".join(source.problem for source in series if source.problem) or "no others"
            set_aside[folder.name] = f"{len(usable)} usable DICOM series, expected one ({problems})"
        else:
            label = FumpeLabel(reference, usable[0].paths)
            cases.append(
                SourceCase(folder.name, (usable[0],), label, patient=folder.name, patient_by=OWN_IDS)
            )
    return _Found(cases, set_aside)


def _rsna(root: Path) -> _Found:
    rows = {row["SeriesInstanceUID"]: row for row in read_points(root / "train.csv", EXAM_COLUMNS)}
    scans = find_scans([root / "train"], salt=PUBLIC_SALT, keep_series_uids=True)
    volumes: dict[str, list[ScanSource]] = defaultdict(list)
    for each in scans:
        if each.is_series:
            volumes[each.series].append(each)
    cases: list[SourceCase] = []
    set_aside: dict[str, str] = {}
    targets: dict[str, int] = {}
    for series, row in sorted(rows.items()):
        there = volumes.get(series, [])
        usable = [each for each in there if not each.problem] or there[:1]
        source = usable[0] if usable else None
        problem = _exam_problem(source, row)
        if len(usable) > 1:
            problem = problem or (
                f"its series holds {len(usable)} volumes, and which one was judged can't be known"
            )
        if source is None or problem:
            set_aside[source.case_id if source else series] = problem
            continue
        targets[source.case_id] = 1 - int(row["negative_exam_for_pe"])
        cases.append(SourceCase(source.case_id, (source,), patient=source.patient))
    if len(set(targets.values())) < 2:
        raise TaskError(f"the examinations in {root} are all of one kind: there is nothing to tell apart")
    return _Found(cases, set_aside, targets=targets)


def _exam_problem(source: ScanSource | None, row: dict[str, Any]) -> str:
    if row["negative_exam_for_pe"] not in ("0", "1") or row["indeterminate"] not in ("0", "1"):
        return "its labels in train.csv are not 0 or 1"
    if row["indeterminate"] == "1":
        return "labelled indeterminate"
    return "its series is not in train/" if source is None else source.problem or ""


def _words(found: _Found) -> list[str]:
    return [f"{case}: {reason}" for case, reason in found.set_aside.items()]
