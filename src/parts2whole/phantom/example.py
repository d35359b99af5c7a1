"""The smallest trees that tasks can be tried on: a few tiny patients, in the form that a task reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from parts2whole.files import write_text
from parts2whole.phantom.ct import Region, make_ct
from parts2whole.phantom.sizes import CT
from parts2whole.phantom.write import DataSet, make_uid, write_itk
from parts2whole.phantom.write_dicom import write_series
from parts2whole.phantom.write_rtstruct import write_structures
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.wholes.random import sample_generator

REGIONS: tuple[Region, ...] = ("abdomen", "chest")


def write_data_set(data_set: DataSet, folder: Path, cases: Iterable[int] = range(5)) -> Path:
    """Tiny patients of a public data set, by their numbers; returns the folder."""
    rows = [data_set.write_case(folder, case, seed=0, size="tiny") for case in cases]
    data_set.finish(folder, rows)
    return folder


def write_pairs(folder: Path, patients: int = 5) -> Path:
    """``images/`` and ``labels/`` of abdominal CT with the liver labelled; returns the folder.

    The first patient has two scans, ``p0-0.nii.gz`` and ``p0-1.nii.gz``.
    """
    for case in range(patients + 1):
        scan = make_ct("abdomen", CT["abdomen"]["tiny"], seed=0, case=case)
        name = f"p{max(0, case - 1)}-{case}.nii.gz"
        write_nifti(scan.image, folder / "images" / name)
        write_nifti(scan.liver_label(), folder / "labels" / name)
    return folder


def write_structure_sets(folder: Path, patients: int = 5) -> Path:
    """CT series of abdomens with a structure set each, of the liver and, where there are, its lesions.

    The last patient's liver is called ``liver``, the others' ``Liver``; returns the folder.
    """
    for case in range(patients):
        scan = make_ct("abdomen", CT["abdomen"]["tiny"], seed=0, case=case)
        label = scan.liver_label()
        study, series = make_uid("study", case), make_uid("series", case)
        write_series(
            scan.image, folder / f"p{case}/CT", patient=f"p{case}", study_uid=study, series_uid=series
        )
        names = {1: "liver" if case == patients - 1 else "Liver", 2: "Lesion"}
        if not (label.array == 2).any():
            del names[2]
        write_structures(
            label,
            names,
            folder / f"p{case}/RTSTRUCT/1.dcm",
            patient=f"p{case}",
            study_uid=study,
            series_uid=series,
        )
    return folder


def write_list(folder: Path, patients: int = 5) -> Path:
    """A chest and an abdomen of every patient and ``list.csv`` that tells them apart; returns the CSV."""
    rows = [("path", "label", "patient")]
    for case in range(patients):
        for region in REGIONS:
            scan = make_ct(region, CT[region]["tiny"], seed=0, case=case)
            write_nifti(scan.image, folder / f"{region}-{case}.nii.gz")
            rows.append((f"{region}-{case}.nii.gz", region, f"p{case}"))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(folder / "list.csv", text.getvalue())
    return folder / "list.csv"


def write_angiograms(folder: Path, patients: int = 6) -> Path:
    """CAD-PE of three vessels through lung, with one or two emboli in the first; returns the folder.

    Phantoms of whole chests would do, but looking for vessels in them at 1 mm takes seconds each.
    """
    z, y, x = np.ogrid[:28, :40, :40]
    for case in range(patients):
        hu = np.full((28, 40, 40), -800, np.int16)
        emboli = np.zeros(hu.shape, np.uint8)
        for row, column in ((10, 10), (30, 30), (10, 30)):
            hu[:, ((y - row) ** 2 + (x - column) ** 2 <= 4)[0]] = 350
        for number in range(1 + case % 2):
            defect = ((z - 6 - 14 * number) ** 2 + (y - 10) ** 2 + (x - 10) ** 2 <= 6) & (hu > 0)
            hu[defect], emboli[defect] = 50, number + 1
        noise = sample_generator("angiogram", case).normal(0, 10, hu.shape).round().astype(np.int16)
        name, spacing = f"CT{case + 1:03d}", (1.5, 1.5, 1.5)
        write_itk(Volume(hu + noise, spacing), folder / "images" / f"{name}.nrrd")
        write_itk(LabelVolume(emboli, spacing), folder / "rs" / f"{name}RefStd.nrrd")
    return folder
