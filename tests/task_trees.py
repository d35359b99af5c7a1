"""Smallest trees of every data set's format, written by hand from the formats' descriptions."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from parts2whole.tasks.base import Task
from parts2whole.tasks.brain_tumour_segmentation import BrainTumourSegmentation
from parts2whole.tasks.embolism_false_positives import EmbolismFalsePositives
from parts2whole.tasks.liver_segmentation import LiverSegmentation
from parts2whole.tasks.nodule_false_positives import NoduleFalsePositives
from parts2whole.tasks.nodule_segmentation import NoduleSegmentation

PATCH = (16, 16, 16)
NAMESPACE = 'xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def ball(shape: tuple[int, int, int], centre, radius: float) -> np.ndarray:
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


# --- LUNA16 ------------------------------------------------------------------------------------------------


def write_mhd(path: Path, array: np.ndarray, *, spacing, offset, matrix) -> None:
    """A MetaImage header and its raw file; spacing, offset in (x, y, z), matrix as nine numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    z, y, x = array.shape
    path.write_text(
        "\n".join(
            [
                "ObjectType = Image",
                "NDims = 3",
                "BinaryData = True",
                "BinaryDataByteOrderMSB = False",
                "CompressedData = False",
                f"TransformMatrix = {' '.join(map(str, matrix))}",
                f"Offset = {' '.join(map(str, offset))}",
                "CenterOfRotation = 0 0 0",
                "AnatomicalOrientation = RAI",
                f"ElementSpacing = {' '.join(map(str, spacing))}",
                f"DimSize = {x} {y} {z}",
                "ElementType = MET_SHORT",
                f"ElementDataFile = {path.stem}.raw",
                "",
            ]
        )
    )
    path.with_suffix(".raw").write_bytes(array.astype("<i2").tobytes())


def luna_world(index_xyz, *, spacing, offset, signs) -> np.ndarray:
    return np.asarray(offset) + np.asarray(signs) * np.asarray(index_xyz) * np.asarray(spacing)


def luna16(root: Path, subsets=range(10), per_subset: int = 1) -> Path:
    """One nodule of 10 mm in each scan, two candidates on it and four elsewhere; odd scans are flipped."""
    candidates, annotations = [], []
    for subset in subsets:
        for scan in range(per_subset):
            number = subset * per_subset + scan
            generator = np.random.default_rng(number)
            uid = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{1000 + number}"
            shape, spacing, offset = (20, 28, 30), (1.0, 1.0, 2.0), (-20.0 - number, 30.0, -100.0)
            signs = (-1, -1, 1) if number % 2 else (1, 1, 1)
            array = generator.normal(-800, 30, shape)
            index = np.array(
                [generator.integers(8, 22), generator.integers(8, 20), generator.integers(6, 14)]
            )
            nodule = ball((shape[0] * 2, *shape[1:]), (index[2] * 2, index[1], index[0]), 5)[::2]
            array[nodule] = 40
            matrix = (signs[0], 0, 0, 0, signs[1], 0, 0, 0, signs[2])
            write_mhd(
                root / f"subset{subset}" / f"{uid}.mhd", array, spacing=spacing, offset=offset, matrix=matrix
            )
            place = {"spacing": spacing, "offset": offset, "signs": signs}
            annotations.append([uid, *luna_world(index, **place), 10.0])
            candidates += [[uid, *luna_world(index + shift, **place), 1] for shift in ((0, 0, 0), (2, 0, 0))]
            for _ in range(4):
                away = (index + generator.integers(8, 12, 3)) % (26, 24, 18)
                candidates.append([uid, *luna_world(away, **place), 0])
    write_csv(root / "candidates_V2.csv", ["seriesuid", "coordX", "coordY", "coordZ", "class"], candidates)
    write_csv(
        root / "annotations.csv", ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"], annotations
    )
    return root


def write_csv(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


# --- DICOM and LIDC-IDRI -----------------------------------------------------------------------------------


def write_series(
    folder: Path,
    hu: np.ndarray,
    *,
    patient: str,
    series: str | None = None,
    study: str | None = None,
    spacing=(2.0, 1.0, 1.0),
    origin=(-10.0, -20.0, 50.0),
    downwards: bool = False,
) -> str:
    """CT slices of a volume (slice, row, column); instance numbers run downwards if asked."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = series or generate_uid(), study or generate_uid()
    for number, plane in enumerate(hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        file.PatientID, file.Modality = patient, "CT"
        file.StudyInstanceUID, file.SeriesInstanceUID = study, series
        file.InstanceNumber = len(hu) - number if downwards else number + 1
        file.Rows, file.Columns = plane.shape
        file.PixelSpacing = [spacing[1], spacing[2]]
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.ImagePositionPatient = [origin[0], origin[1], origin[2] + number * spacing[0]]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        file.PixelData = (plane.astype(int) + 1024).astype("<u2").tobytes()
        pydicom.dcmwrite(folder / f"{number:03d}.dcm", file, enforce_file_format=True)
    return series


def ring(rows: tuple[int, int], columns: tuple[int, int]) -> list[tuple[int, int]]:
    """Pixels (column, row) of the outline just outside the box of rows and columns (last ones included)."""
    top, bottom, left, right = rows[0] - 1, rows[1] + 1, columns[0] - 1, columns[1] + 1
    return (
        [(c, top) for c in range(left, right)]
        + [(right, r) for r in range(top, bottom)]
        + [(c, bottom) for c in range(right, left, -1)]
        + [(left, r) for r in range(bottom, top, -1)]
    )


def roi(z_mm: float, pixels, inclusion: str = "TRUE") -> str:
    edges = "".join(f"<edgeMap><xCoord>{c}</xCoord><yCoord>{r}</yCoord></edgeMap>" for c, r in pixels)
    return f"<roi><imageZposition>{z_mm}</imageZposition><imageSOP_UID>1.2</imageSOP_UID><inclusion>{inclusion}</inclusion>{edges}</roi>"


def lidc_xml(path: Path, series: str, readers: list[list[list[str]]]) -> None:
    """An annotation file: of each reader, of each nodule, its rois."""
    sessions = ""
    for number, nodules in enumerate(readers):
        drawn = "".join(
            f"<unblindedReadNodule><noduleID>Nodule {number}-{i}</noduleID>{''.join(rois)}</unblindedReadNodule>"
            for i, rois in enumerate(nodules)
        )
        sessions += (
            f"<readingSession><servicingRadiologistID>anon</servicingRadiologistID>{drawn}</readingSession>"
        )
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><LidcReadMessage uid="1.3" {NAMESPACE}><ResponseHeader>'
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>{sessions}</LidcReadMessage>"
    )


def lidc(root: Path, patients: int = 7) -> Path:
    """One or two nodules a scan, drawn by four readers who differ by a pixel."""
    for number in range(patients):
        generator = np.random.default_rng(number)
        hu = generator.normal(-800, 20, (10, 24, 26))
        folder = root / f"LIDC-IDRI-{number:04d}" / "study" / "series"
        nodules = []
        for place in ((3, 5, 5), (6, 15, 16))[: 1 + number % 2]:
            z, y, x = (int(p + generator.integers(0, 2)) for p in place)
            hu[z - 1 : z + 2, y : y + 5, x : x + 5] = 30
            nodules.append((z, y, x))
        series = write_series(folder, hu, patient=f"LIDC-IDRI-{number:04d}", downwards=bool(number % 2))
        readers = [
            [
                [roi(50 + 2 * k, ring((y, y + 4 - r % 2), (x, x + 4))) for k in (z - 1, z, z + 1)]
                for z, y, x in nodules
            ]
            for r in range(4)
        ]
        lidc_xml(folder / "069.xml", series, readers)
    return root


# --- LiTS, BraTS, CAD-PE -----------------------------------------------------------------------------------


def abdomen(seed: int, shape=(18, 22, 24)) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels (x, y, z as NIfTI has it): liver with a tumour in it."""
    generator = np.random.default_rng(seed)
    hu = np.full(shape, -1000.0)
    hu[2:-2, 2:-2] = 0
    label = np.zeros(shape, np.uint8)
    centre = [n // 2 + int(generator.integers(-2, 3)) for n in shape]
    label[ball(shape, centre, 6)] = 1
    label[ball(shape, centre, 2)] = 2
    hu[label == 1], hu[label == 2] = 110, 50
    return np.clip(hu + generator.normal(0, 10, shape), -1024, None).astype(np.int16), label


def lits(root: Path, numbers=(0, 1, 2, 3, 100, 101, 115, 116)) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-0.8, -0.8, 2.0, 1.0])
    for number in numbers:
        hu, label = abdomen(number)
        suffix = ".nii.gz" if number % 2 else ".nii"
        nib.save(nib.Nifti1Image(hu, affine), root / f"volume-{number}{suffix}")
        nib.save(nib.Nifti1Image(label, affine), root / f"segmentation-{number}{suffix}")
    return root


BRATS_2021 = {"t1": "_t1", "t2": "_t2", "t1ce": "_t1ce", "flair": "_flair", "seg": "_seg"}
BRATS_2023 = {"t1": "-t1n", "t2": "-t2w", "t1ce": "-t1c", "flair": "-t2f", "seg": "-seg"}


def brain(seed: int, shape=(22, 24, 20)) -> dict[str, np.ndarray]:
    """Four modalities and a reference with labels 1 (core), 2 (oedema), 4 (enhancing)."""
    generator = np.random.default_rng(seed)
    head = ball(shape, [n / 2 for n in shape], 10)
    centre = [n // 2 + int(generator.integers(-3, 4)) for n in shape]
    seg = np.zeros(shape, np.uint8)
    for value, radius in ((2, 5), (4, 3.2), (1, 2)):
        seg[ball(shape, centre, radius)] = value
    made = {"seg": seg}
    for number, name in enumerate(("t1", "t2", "t1ce", "flair")):
        image = np.where(head, 300.0 + 10 * number, 0.0)
        image[seg > 0] += 200
        image[seg == 4] += 150 if name == "t1ce" else 0
        made[name] = (image + head * generator.normal(0, 10, shape)).astype(np.int16)
    return made


def brats(
    root: Path, cases: int = 7, names=BRATS_2021, pattern: str = "BraTS2021_{:05d}", suffix=".nii.gz"
) -> Path:
    for number in range(cases):
        case = pattern.format(number)
        (root / case).mkdir(parents=True, exist_ok=True)
        for part, array in brain(number).items():
            if names is BRATS_2023 and part == "seg":
                array = np.where(array == 4, 3, array).astype(np.uint8)
            nib.save(
                nib.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0])),
                root / case / f"{case}{names[part]}{suffix}",
            )
    return root


def angiogram(seed: int, shape=(28, 40, 40)) -> tuple[np.ndarray, np.ndarray]:
    """HU and numbered emboli (z, y, x): two vessels through lung, with a filling defect in the first."""
    generator = np.random.default_rng(seed)
    hu = np.full(shape, -800.0)
    y, x = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    for row, column in ((10, 10), (30, 30), (10, 30)):
        hu[:, (y - row) ** 2 + (x - column) ** 2 <= 4] = 350
    label = np.zeros(shape, np.uint8)
    for number, z in enumerate((6, 20)[: 1 + seed % 2], start=1):
        defect = ball(shape, (z, 10, 10), 2.5) & (hu > 0)
        hu[defect], label[defect] = 50, number
    return hu + generator.normal(0, 10, shape), label


def write_nrrd(path: Path, array: np.ndarray, spacing=(1.5, 1.5, 1.5)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(path))


def cad_pe(root: Path, cases: int = 7) -> Path:
    for number in range(1, cases + 1):
        hu, label = angiogram(number)
        write_nrrd(root / "images" / f"CT{number:03d}.nrrd", hu.astype(np.int16))
        write_nrrd(root / "rs" / f"CT{number:03d}RefStd.nrrd", label)
    return root


def own_pairs(root: Path, cases: int = 7) -> Path:
    for number in range(cases):
        hu, label = abdomen(number)
        for kind, array in (("images", hu), ("labels", label)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            name = f"p{number // 2}-scan{number}.nii.gz"  # two scans a patient
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / kind / name)
    return root


# --- a task on each of them --------------------------------------------------------------------------------

SMALL = {"patch_size": PATCH, "validation_fraction": 0.25, "test_fraction": 0.25}


def build_task(name: str, root: Path) -> Task:
    """One of the challenges' tasks on its smallest tree."""
    root.mkdir(parents=True, exist_ok=True)
    if name == "NoduleFalsePositives":
        return NoduleFalsePositives(luna16(root), patch_size=PATCH, hidden=8)
    if name == "NoduleSegmentation":
        return NoduleSegmentation(lidc(root), **SMALL)
    if name == "LiverSegmentation":
        return LiverSegmentation(lits(root), patch_size=PATCH)
    if name == "EmbolismFalsePositives":
        return EmbolismFalsePositives(cad_pe(root), hidden=8, away_mm=10, **SMALL)
    if name == "BrainTumourSegmentation":
        return BrainTumourSegmentation(
            brats(root), crop_size=(20, 20, 20), modalities=("flair", "t1"), **SMALL
        )
    raise KeyError(f"{name} has no tree here; `Task.example` gives every task one")
