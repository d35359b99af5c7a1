"""Every written tree against the description of its format, read by SimpleITK, nibabel, pydicom and csv alone."""

from __future__ import annotations

import csv
import json
import re
from xml.etree import ElementTree

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon
from PIL import Image

from parts2whole.phantom.ct import make_ct
from parts2whole.phantom.data_sets import UnknownDataSetError, choose_data_sets
from parts2whole.phantom.sizes import CT
from parts2whole.phantom.write import flip
from parts2whole.phantom.write_lidc import trace_outline
from parts2whole.scans.read import find_scans, read_label, read_scan, read_volume
from parts2whole.scans.volume import Volume, to_canonical
from parts2whole.verbs.phantom import PhantomError, phantom

NIH = "{http://www.nih.gov}"


def files(folder, suffix=""):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob(f"*{suffix}") if p.is_file())


def test_luna16_has_its_names_and_columns(written):
    root = written.folder / "LUNA16"
    uids = [path.stem for path in sorted(root.glob("subset*/*.mhd"))]
    expected = ["annotations.csv", "candidates_V2.csv"]
    expected += [f"subset{n}/{uid}.{kind}" for n, uid in enumerate(uids) for kind in ("mhd", "raw")]
    assert files(root) == sorted(expected)
    for name, columns in (
        ("annotations.csv", "seriesuid,coordX,coordY,coordZ,diameter_mm"),
        ("candidates_V2.csv", "seriesuid,coordX,coordY,coordZ,class"),
    ):
        first, *rows = (root / name).read_text().splitlines()
        assert first == columns
        assert {row.split(",")[0] for row in rows} == set(uids)
    with (root / "candidates_V2.csv").open() as file:
        classes = [row["class"] for row in csv.DictReader(file)]
    assert set(classes) == {"0", "1"}
    assert classes.count("0") > 5 * classes.count("1")


def test_luna16_coordinates_hit_nodules_by_simpleitk(written):
    """Also in the scan that is stored from the other end of its rows and columns."""
    root = written.folder / "LUNA16"
    diagonals = []
    for case, path in enumerate(sorted(root.glob("subset*/*.mhd"))):
        image = sitk.ReadImage(str(path))
        diagonals.append(tuple(np.diag(np.reshape(image.GetDirection(), (3, 3)))))
        truth = make_ct("chest", CT["chest"]["tiny"], seed=0, case=case)
        mask = truth.lesion[:, ::-1, ::-1] if diagonals[-1][0] < 0 else truth.lesion
        with (root / "annotations.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["seriesuid"] == path.stem]
        assert len(rows) == len(truth.lesions) > 0
        for number, row in enumerate(rows, start=1):
            place = [float(row[name]) for name in ("coordX", "coordY", "coordZ")]
            x, y, z = image.TransformPhysicalPointToIndex(place)
            assert mask[z, y, x] == number
            assert float(row["diameter_mm"]) == pytest.approx(truth.lesions[number - 1].diameter_mm)
        with (root / "candidates_V2.csv").open() as file:
            for row in csv.DictReader(file):
                if row["seriesuid"] == path.stem:
                    place = [float(row[name]) for name in ("coordX", "coordY", "coordZ")]
                    x, y, z = image.TransformPhysicalPointToIndex(place)
                    assert bool(mask[z, y, x]) == (row["class"] == "1")
        ours = to_canonical(read_volume(path))
        assert np.array_equal(ours.array, truth.image.array)
        assert ours.same_grid(truth.image)
    assert diagonals == [(1, 1, 1), (-1, -1, 1)]


def test_lidc_has_series_that_everyone_reads(written):
    root = written.folder / "LIDC-IDRI"
    patients = sorted(root.iterdir())
    assert [patient.name for patient in patients] == ["LIDC-IDRI-0001", "LIDC-IDRI-0002"]
    for case, patient in enumerate(patients):
        (series,) = patient.glob("*/*")
        names = files(series)
        assert [name for name in names if not name.endswith(".dcm")] == [f"{case + 1:03d}.xml"]
        header = pydicom.dcmread(sorted(series.glob("*.dcm"))[0])
        assert (header.StudyInstanceUID, header.SeriesInstanceUID) == (series.parent.name, series.name)
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        truth = make_ct("chest", CT["chest"]["tiny"], seed=0, case=case)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
        image = reader.Execute()
        assert np.array_equal(sitk.GetArrayFromImage(image), truth.image.array)
        assert image.GetOrigin() == pytest.approx(truth.image.origin_mm, abs=1e-4)
        assert image.GetSpacing()[::-1] == pytest.approx(truth.image.spacing_mm, abs=1e-4)
        (source,) = find_scans([series], salt=b"")
        ours = to_canonical(read_scan(source))
        assert np.array_equal(ours.array, truth.image.array)
        assert ours.same_grid(truth.image)


def test_luna16_is_a_subset_of_lidc(written):
    """The real sets share their series UIDs, which is what leaks are found by."""
    series = {path.parent.name for path in (written.folder / "LIDC-IDRI").rglob("*.xml")}
    assert {path.stem for path in (written.folder / "LUNA16").rglob("*.mhd")} == series


def test_lidc_contours_run_around_nodules(written):
    agreements = []
    for case, path in enumerate(sorted((written.folder / "LIDC-IDRI").rglob("*.xml"))):
        truth = make_ct("chest", CT["chest"]["tiny"], seed=0, case=case)
        uids = {
            str(header.SOPInstanceUID): round(
                (float(header.ImagePositionPatient[2]) - truth.image.origin_mm[2]) / truth.image.spacing_mm[0]
            )
            for header in (pydicom.dcmread(p, stop_before_pixels=True) for p in path.parent.glob("*.dcm"))
        }
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{NIH}LidcReadMessage"
        assert root.findtext(f"{NIH}ResponseHeader/{NIH}SeriesInstanceUid") == path.parent.name
        sessions = root.findall(f"{NIH}readingSession")
        assert len(sessions) == 4
        consensus = np.zeros(truth.lesion.shape, dtype=int)
        readings = []
        for session in sessions:
            reading = np.zeros(truth.lesion.shape, dtype=bool)
            for nodule in session.findall(f"{NIH}unblindedReadNodule"):
                regions = nodule.findall(f"{NIH}roi")
                rated = nodule.find(f"{NIH}characteristics") is not None
                if not rated:
                    assert [len(region.findall(f"{NIH}edgeMap")) for region in regions] == [1]
                    continue
                for region in regions:
                    height = uids[region.findtext(f"{NIH}imageSOP_UID")]
                    place = truth.image.origin_mm[2] + height * truth.image.spacing_mm[0]
                    assert float(region.findtext(f"{NIH}imageZposition")) == pytest.approx(place, abs=1e-3)
                    corners = [
                        (int(edge.findtext(f"{NIH}xCoord")), int(edge.findtext(f"{NIH}yCoord")))
                        for edge in region.findall(f"{NIH}edgeMap")
                    ]
                    assert corners[0] == corners[-1]
                    reading[height] |= inside(corners, reading.shape[1:])
            readings.append(reading)
            consensus += reading
        assert len({reading.tobytes() for reading in readings}) > 1
        agreed = consensus >= 2
        agreements.append(2 * (agreed & (truth.lesion > 0)).sum() / (agreed.sum() + (truth.lesion > 0).sum()))
    assert min(agreements) > 0.7


def inside(corners, shape):
    """Pixels strictly inside a polygon through pixel centres, by matplotlib."""
    rows, columns = np.indices(shape)
    points = np.column_stack([columns.ravel(), rows.ravel()])
    polygon = Polygon(corners, closed=True)
    area = np.asarray(corners, dtype=float)
    turns = np.sum(area[:-1, 0] * area[1:, 1] - area[1:, 0] * area[:-1, 1])
    radius = -1e-6 if turns > 0 else 1e-6
    return polygon.contains_points(points, radius=radius).reshape(shape)


@pytest.mark.parametrize("seed", range(6))
def test_an_outline_holds_exactly_its_region(seed):
    from scipy.ndimage import binary_fill_holes, gaussian_filter, label

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(24, 30)), 1.5)
    pieces, count = label(binary_fill_holes(noise > 0.02))
    for piece in range(1, count + 1):
        mask = pieces == piece
        mask[[0, -1]] = mask[:, [0, -1]] = False
        if not mask.any() or label(mask)[1] > 1:
            continue
        chain = trace_outline(mask)
        assert chain[0] == chain[-1]
        steps = np.abs(np.diff(chain, axis=0)).max(axis=1)
        assert (steps == 1).all()
        assert not any(mask[place] for place in chain)
        filled = inside([(column, row) for row, column in chain], mask.shape)
        assert (filled >= mask).all()


def test_lits_has_pairs_on_one_grid(written):
    root = written.folder / "LiTS"
    assert files(root) == ["segmentation-0.nii", "segmentation-1.nii", "volume-0.nii", "volume-1.nii"]
    codes, values = [], set()
    for case in range(2):
        volume, label = (nibabel.load(root / f"{kind}-{case}.nii") for kind in ("volume", "segmentation"))
        assert np.allclose(volume.affine, label.affine)
        assert volume.shape == label.shape
        codes.append("".join(nibabel.aff2axcodes(volume.affine)))
        values |= set(np.unique(np.asarray(label.dataobj)).tolist())
        hu = np.asarray(volume.dataobj)[np.asarray(label.dataobj) == 1]
        assert 80 < np.median(hu) < 130
        centre = nibabel.affines.apply_affine(
            volume.affine, np.argwhere(np.asarray(label.dataobj) > 0).mean(axis=0)
        )
        truth = make_ct("abdomen", CT["abdomen"]["tiny"], seed=0, case=case, lesions=0)
        body = np.argwhere(truth.structures == 4).mean(axis=0)
        assert (
            centre[0] > -truth.grid.world(truth.grid.first_mm + body * truth.grid.spacing_mm)[0]
        )  # right, in RAS
    assert values <= {0, 1, 2}
    assert {0, 1} <= values
    assert len(set(codes)) == 2


def test_cad_pe_numbers_its_emboli(written):
    root = written.folder / "CAD-PE"
    assert files(root) == [
        *("images/CT001.nrrd", "images/CT002.nrrd"),
        *("rs/CT001RefStd.nrrd", "rs/CT002RefStd.nrrd"),
    ]
    for case in (1, 2):
        image = sitk.ReadImage(str(root / "images" / f"CT{case:03d}.nrrd"))
        label = sitk.ReadImage(str(root / "rs" / f"CT{case:03d}RefStd.nrrd"))
        assert image.GetSize() == label.GetSize()
        assert image.GetOrigin() == label.GetOrigin()
        found = set(np.unique(sitk.GetArrayFromImage(label)).tolist()) - {0}
        assert len(found) >= 1
        assert read_label(root / "rs" / f"CT{case:03d}RefStd.nrrd").array.max() == max(found)


def test_brats_has_five_files_a_patient(written):
    root = written.folder / "BraTS2018"
    kinds = ("flair", "seg", "t1", "t1ce", "t2")
    for name in ("Brats18_PHANTOM_001_1", "Brats18_PHANTOM_002_1"):
        folder = root / "HGG" / name
        assert files(folder) == [f"{name}_{kind}.nii.gz" for kind in kinds]
        images = [nibabel.load(folder / f"{name}_{kind}.nii.gz") for kind in kinds]
        assert all(np.allclose(image.affine, images[0].affine) for image in images)
        assert nibabel.aff2axcodes(images[0].affine) == ("L", "P", "S")
        label = np.asarray(images[1].dataobj)
        assert set(np.unique(label).tolist()) == {0, 1, 2, 4}
        brain = np.asarray(images[2].dataobj) > 0
        assert brain[label > 0].mean() > 0.99
        assert (~brain).mean() > 0.5


def test_the_full_brats_grid_is_the_real_one():
    """240 x 240 x 155 voxels of 1 mm, with the origin at (0, 239, 0) in RAS."""
    from parts2whole.phantom.sizes import brain_grid

    grid = brain_grid("full")
    assert grid.shape == (155, 240, 240)
    assert grid.spacing_mm == (1.0, 1.0, 1.0)
    assert grid.world(grid.first_mm) == (0.0, -239.0, 0.0)


def test_the_pool_holds_other_patients(written):
    root = written.folder / "pool"
    assert {path.name for path in root.iterdir()} == {"abdomen_ct", "angiography_ct", "brain_mr", "chest_ct"}
    sources = find_scans([root], salt=b"")
    assert len(sources) == 8
    assert all(source.problem is None for source in sources)
    pool = read_volume(root / "chest_ct" / "chest_0001.nii.gz").array
    labelled = make_ct("chest", CT["chest"]["tiny"], seed=0, case=0).image.array
    assert not np.array_equal(pool, labelled)


def test_a_flip_moves_no_voxel_in_the_patient():
    generator = np.random.default_rng(0)
    volume = Volume(generator.integers(0, 99, (3, 4, 5)).astype(np.int16), (2.0, 1.0, 0.5), (7.0, -3.0, 11.0))
    turned = flip(volume, (1, 2))
    for z, y, x in np.ndindex(3, 4, 5):
        place = volume.affine() @ (z, y, x, 1)
        index = np.rint(np.linalg.solve(turned.affine(), place))[:3].astype(int)
        assert turned.array[tuple(index)] == volume.array[z, y, x]
    assert turned.direction == ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0))


def test_montages_are_drawn_for_every_labelled_set(written):
    names = ["LUNA16", "LIDC-IDRI", "LiTS", "CAD-PE", "BraTS2018"]
    assert [path.name for path in written.previews] == [f"{name}.png" for name in names]
    assert all(np.asarray(Image.open(path)).std() > 2 for path in written.previews)
    assert "not for clinical" in written.summary()


def test_a_restart_writes_what_is_missing_and_the_same_again(written, tmp_path):
    options = {"cases": 2, "size": "tiny", "workers": 0, "progress": False}
    first = phantom(out=tmp_path, tasks=["LUNA16"], **options)
    assert first.written == 2
    again = phantom(out=tmp_path, tasks=["NoduleFalsePositives"], **options)
    assert again.written == 0
    (tmp_path / ".phantom" / "LUNA16" / "00001.json").unlink()
    assert phantom(out=tmp_path, tasks=["LUNA16"], **options).written == 1
    for name in files(tmp_path / "LUNA16"):
        there = written.folder / "LUNA16" / name
        assert there.read_bytes() == (tmp_path / "LUNA16" / name).read_bytes(), name
    assert not [name for name in files(tmp_path) if "part" in name]


def test_tables_keep_the_patients_that_an_earlier_call_wrote(written, tmp_path):
    options = {"tasks": ["LUNA16"], "size": "tiny", "workers": 0, "progress": False}
    phantom(out=tmp_path, cases=2, **options)
    assert phantom(out=tmp_path, cases=1, **options).written == 0
    for name in ("annotations.csv", "candidates_V2.csv"):
        assert (tmp_path / "LUNA16" / name).read_text() == (written.folder / "LUNA16" / name).read_text()


def test_other_settings_are_not_mixed_in(written):
    with pytest.raises(PhantomError, match=re.escape("seed 0 and size tiny, not 1 and tiny")):
        phantom(out=written.folder, seed=1, size="tiny", progress=False)
    assert json.loads((written.folder / ".phantom" / "settings.json").read_text())["seed"] == 0


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(PhantomError, match="at least 1, got 0"):
        phantom(out=tmp_path / "out", cases=0)
    with pytest.raises(UnknownDataSetError, match=r"known for Lits2; choose all, or of LUNA16 \(NoduleFalse"):
        choose_data_sets(["LiTS", "Lits2"])
    assert [each.folder for each in choose_data_sets(["pool", "LiverSegmentation"])] == ["LiTS", "pool"]
    assert not (tmp_path / "out").exists()
