"""LiTS, BraTS and LIDC-IDRI trees: what is read, what is set aside, what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.tasks.brain_tumour_segmentation import BrainTumourSegmentation
from parts2whole.tasks.brats import find_cases
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.liver_segmentation import LiverSegmentation
from parts2whole.tasks.nodule_segmentation import NoduleSegmentation
from task_trees import BRATS_2023, PATCH, SMALL, abdomen, brain, brats, lidc, lits, own_pairs, write_csv


def opened(task, cache: Path):
    return task.labelled(cache=cache, workers=0, progress=False)


def voxels(labelled, task) -> dict[str, list[int]]:
    """Voxels of every class, by item."""
    return {
        item.item_id: np.bincount(task.reference(labelled, item.item_id).ravel(), minlength=4).tolist()
        for item in labelled.items
    }


# --- liver -------------------------------------------------------------------------------------------------


def test_liver_and_tumour_are_told_from_the_same_labels(tmp_path):
    task = LiverSegmentation(lits(tmp_path / "lits"), patch_size=PATCH)
    label = abdomen(3)[1]
    for target, expected in (
        ("liver", [int((label > 0).sum())]),
        ("tumour", [int((label == 2).sum())]),
        ("both", [int((label == 1).sum()), int((label == 2).sum())]),
    ):
        chosen = task.replace(target=target)
        found = voxels(opened(chosen, tmp_path / "cache"), chosen)["liver-003"]
        assert found[1 : 1 + len(expected)] == expected
    assert len(list((tmp_path / "cache").glob("liversegmentation-*/manifest.json"))) == 1


def test_the_published_split_by_number(tmp_path):
    task = LiverSegmentation(lits(tmp_path / "lits", (0, 99, 100, 114, 115, 129, 130)), patch_size=PATCH)
    labelled = opened(task, tmp_path / "cache")
    split = task.split(labelled)
    assert split.train == ("liver-000", "liver-099")
    assert split.validation == ("liver-100", "liver-114")
    assert split.test == ("liver-115", "liver-129")
    assert labelled.notes == ("liver-130 was set aside: its number is on no side",)
    assert len(task.replace(folds="patient").sources().cases) == 7


def test_few_cases_are_split_by_patient_and_say_so(tmp_path):
    task = LiverSegmentation(lits(tmp_path / "lits", range(5)), patch_size=PATCH)
    labelled = opened(task, tmp_path / "cache")
    assert any("split by patient" in note for note in labelled.notes)
    assert task.split(labelled).test


def test_decathlon_layout(tmp_path):
    for number in range(4):
        hu, label = abdomen(number)
        for kind, array in (("imagesTr", hu), ("labelsTr", label)):
            (tmp_path / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / kind / f"liver_{number}.nii.gz")
    (tmp_path / "imagesTr" / "._liver_1.nii.gz").write_text("resource fork")
    assert [case.case_id for case in LiverSegmentation(tmp_path).sources().cases] == [
        f"liver-00{n}" for n in range(4)
    ]


def test_incomplete_and_contradicting_liver_cases(tmp_path):
    root = lits(tmp_path / "lits", range(5))
    (root / "segmentation-1.nii.gz").unlink()
    nib.save(nib.Nifti1Image(abdomen(2)[1][:-1], np.diag([-0.8, -0.8, 2, 1])), root / "segmentation-2.nii")
    labelled = opened(LiverSegmentation(root, patch_size=PATCH), tmp_path / "a")
    assert {item.case_id for item in labelled.items} == {"liver-000", "liver-003", "liver-004"}
    assert any("liver-001 was set aside: no label map" in note for note in labelled.notes)
    assert any("liver-002 was set aside: image and label lie on different grids" in n for n in labelled.notes)
    for path in root.glob("segmentation-*"):
        label = np.minimum(np.asarray(nib.load(path).dataobj), 1).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, np.diag([-0.8, -0.8, 2, 1])), path)
    with pytest.raises(TaskError, match="has a tumour"):
        opened(LiverSegmentation(root, patch_size=PATCH, target="tumour"), tmp_path / "b")
    for path in root.glob("segmentation-*"):
        label = np.zeros(nib.load(path).shape, np.uint8)
        nib.save(nib.Nifti1Image(label, np.diag([-0.8, -0.8, 2, 1])), path)
    with pytest.raises(TaskError, match="nothing but background"):
        opened(LiverSegmentation(root, patch_size=PATCH), tmp_path / "c")
    nib.save(nib.Nifti1Image(abdomen(0)[0], np.eye(4)), root / "volume-3.nii")
    with pytest.raises(TaskError, match="two files for case 3"):
        LiverSegmentation(root).sources()
    with pytest.raises(TaskError, match=r"no volume-N\.nii"):
        LiverSegmentation(tmp_path / "a").sources()


# --- brain -------------------------------------------------------------------------------------------------


def old_brats(root: Path) -> Path:
    """BraTS 2013: every image in a folder of its own."""
    names = {"t1": "MR_T1", "t2": "MR_T2", "t1ce": "MR_T1c", "flair": "MR_Flair"}
    for number in range(3):
        made = brain(number)
        for serial, (part, array) in enumerate(made.items()):
            name = (
                f"VSD.Brain.XX.O.{names[part]}.{54512 + serial}"
                if part in names
                else "VSD.Brain_3more.XX.O.OT.54517"
            )
            folder = root / "HG" / f"{number + 1:04d}" / name
            folder.mkdir(parents=True)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.T), str(folder / f"{name}.mha"))
    return root


@pytest.mark.parametrize(
    ("edition", "case", "patient"),
    [
        ("2013", "HG-0001", "HG-0001"),
        ("2018", "Brats18_2013_3_1", "Brats18_2013_3"),
        ("2020", "BraTS20_Training_355", "BraTS20_Training_355"),
        ("2021", "BraTS2021_00000", "BraTS2021_00000"),
        ("2023", "BraTS-GLI-00000-000", "BraTS-GLI-00000"),
    ],
)
def test_every_edition_gives_the_same_parts(edition, case, patient, tmp_path):
    root = tmp_path / "brats"
    if edition == "2013":
        old_brats(root)
    elif edition == "2018":
        brats(root / "HGG", 1, pattern="Brats18_2013_3_1")
    elif edition == "2020":
        brats(root, 1, pattern=case, suffix=".nii")
        (root / case / f"{case}_seg.nii").rename(root / case / "W39_1998.09.19_Segm.nii")
    elif edition == "2021":
        brats(root, 1)
    else:
        brats(root, 1, names=BRATS_2023, pattern=case)
    task = BrainTumourSegmentation(root, target="regions", modalities=("flair", "t1"), **SMALL)
    labelled = opened(task, tmp_path / "cache")
    item = next(item for item in labelled.items if item.case_id == case)
    assert item.patient == patient
    assert labelled.store.record(case).channels == 2
    seg = brain(0)["seg"]
    expected = [int((seg == value).sum()) for value in (2, 1, 4)]  # oedema, core, enhancing
    assert voxels(labelled, task)[case][1:] == expected
    image = task.image(labelled, case)
    assert float(image[0].min()) == float(image[1].min()) == 0
    assert float(image[0].max()) == float(image[1].max()) == 1  # each channel by its own range


def test_visits_of_a_patient_stay_together(tmp_path):
    for visit in (0, 1):
        brats(tmp_path / "b", 1, names=BRATS_2023, pattern=f"BraTS-GLI-00007-{visit:03d}")
    assert {case.patient for case in find_cases(sorted((tmp_path / "b").rglob("*.nii.gz")))} == {
        "BraTS-GLI-00007"
    }


def test_incomplete_and_mixed_brain_cases(tmp_path):
    root = brats(tmp_path / "b", 4)
    (root / "BraTS2021_00001" / "BraTS2021_00001_flair.nii.gz").unlink()
    (root / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz").unlink()
    nib.save(
        nib.Nifti1Image(brain(3)["seg"] * 2, np.diag([-1.0, -1, 1, 1])),
        root / "BraTS2021_00003" / "BraTS2021_00003_seg.nii.gz",
    )
    task = BrainTumourSegmentation(root, **SMALL)
    labelled = opened(task, tmp_path / "cache")
    assert [item.case_id for item in labelled.items] == ["BraTS2021_00000"]
    assert "BraTS2021_00001 was set aside: no flair (it has t1, t2, t1ce, seg)" in labelled.notes
    assert any("BraTS2021_00002 was set aside: no seg" in note for note in labelled.notes)
    assert any("holds label 8" in note for note in labelled.notes)
    assert len(task.replace(modalities=("t2",)).sources().cases) == 3
    brats(root, 1, names=BRATS_2023, pattern="BraTS-GLI-00000-000")
    with pytest.raises(TaskError, match="mixes editions"):
        task.sources()
    with pytest.raises(TaskError, match="modalities must be some of"):
        task.replace(modalities=("t1gd",))
    (tmp_path / "none").mkdir()
    with pytest.raises(TaskError, match="no BraTS case"):
        task.replace(data=tmp_path / "none").sources()


# --- nodules -----------------------------------------------------------------------------------------------


def test_every_nodule_is_an_item_in_the_middle_of_its_crop(tmp_path):
    task = NoduleSegmentation(lidc(tmp_path / "lidc", 4), **SMALL)
    labelled = opened(task, tmp_path / "cache")
    assert len(labelled.items) == 6
    for item in labelled.items:
        reference, image = (
            task.reference(labelled, item.item_id),
            task.image(labelled, item.item_id)[0].numpy(),
        )
        assert reference.shape == PATCH
        assert reference[7:9, 7:9, 7:9].all()
        assert image[reference == 1].min() > 0.45  # 30 HU against lung at -800 HU
    assert len({item.patient for item in labelled.items}) == 4


def test_series_without_annotations_are_set_aside(tmp_path):
    root = lidc(tmp_path / "lidc", 3)
    next(root.rglob("*.xml")).unlink()
    labelled = opened(NoduleSegmentation(root, **SMALL), tmp_path / "cache")
    assert any("no XML file names this series" in note for note in labelled.notes)
    for path in root.rglob("*.dcm"):
        path.unlink()
    with pytest.raises(TaskError, match="no annotated CT series"):
        NoduleSegmentation(root, **SMALL).sources()


def test_the_same_split_on_every_machine(tmp_path, monkeypatch):
    task = NoduleSegmentation(lidc(tmp_path / "lidc", 4), **SMALL)
    first = [(case.case_id, case.patient) for case in task.sources().cases]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another user"))
    assert [(case.case_id, case.patient) for case in task.sources().cases] == first


def test_own_nodules_as_pairs_of_files(tmp_path):
    root = own_pairs(tmp_path / "pairs", 4)
    task = NoduleSegmentation(root, patient_separator="-", **SMALL)
    labelled = opened(task, tmp_path / "cache")
    assert len(labelled.items) == 4
    assert {item.patient for item in labelled.items} == {"p0", "p1"}
    write_csv(root / "images" / "notes.csv", ["a"], [])  # other files are passed over
    assert len(task.sources().cases) == 4


def test_visits_of_brats_2015_are_of_one_patient(tmp_path):
    for grade, name in (
        ("HGG", "brats_tcia_pat153_0002"),
        ("HGG", "brats_tcia_pat153_0109"),
        ("LGG", "brats_tcia_pat153_0181"),
        ("HGG", "brats_2013_pat0001_1"),
    ):
        path = tmp_path / grade / name / "VSD.Brain.XX.O.MR_Flair.1" / "VSD.Brain.XX.O.MR_Flair.1.mha"
        path.parent.mkdir(parents=True)
        path.touch()
    found = {case.name: case.patient for case in find_cases(sorted(tmp_path.rglob("*.mha")))}
    assert sorted(found.values()) == ["brats_2013_pat0001", *["brats_tcia_pat153"] * 3]


def test_parts_of_the_tumours_of_children_are_not_guessed(tmp_path):
    for number, values in enumerate(((1, 2, 3), (1, 2, 4))):
        case = f"BraTS-PED-{number:05d}-000"
        label = np.zeros((8, 8, 8), np.uint8)
        for place, value in enumerate(values):
            label[place + 1] = value
        folder = tmp_path / case
        folder.mkdir()
        write_nifti(
            Volume(label + np.arange(512, dtype=np.int16).reshape(8, 8, 8)), folder / f"{case}-t2f.nii.gz"
        )
        write_nifti(LabelVolume(label), folder / f"{case}-seg.nii.gz")
    task = BrainTumourSegmentation(tmp_path, patch_size=(8, 8, 8))
    with pytest.raises(TaskError, match="BraTS-PED mean other parts"):
        task.replace(target="regions").sources()
    cases = task.sources().cases
    assert {case.patient for case in cases} == {"BraTS-PED-00000", "BraTS-PED-00001"}
    for case in cases:
        label = case.label.read(None).array
        assert np.array_equal(
            label > 0, np.isin(np.arange(8), (1, 2, 3))[:, None, None] & np.ones((8, 8, 8), bool)
        )
