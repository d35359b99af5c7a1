"""Values of label maps as classes: nothing is wrapped, cut or taken for its neighbour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from parts2whole.evaluation.regions import IGNORED, RegionScores, class_regions
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.labels import class_indices
from parts2whole.tasks.segmentation import Segmentation


def pairs(root: Path, *labels: np.ndarray) -> Path:
    for case, label in enumerate(labels):
        image = np.random.default_rng(case).normal(100, 9, label.shape).astype(np.float32)
        for folder, volume in (("images", Volume(image)), ("labels", LabelVolume(label))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_nifti(volume, root / folder / f"c{case}.nii.gz")
    return root


def labelled(root: Path, **settings):
    task = Segmentation(root, preprocess=Preprocess(modality="MR"), patch_size=(8, 8, 8), **settings)
    return task, task.labelled(cache=root / "cache", workers=0, progress=False)


def test_every_value_has_its_own_index_or_is_refused():
    values = np.array([[0, 300, 5], [70000, 5, 0]], np.int32)
    assert class_indices(values, ("0", "5", "300", "70000")).tolist() == [[0, 2, 1], [3, 1, 0]]
    assert class_indices(np.array([9, 0, -1]), ("0", "9"), ignored=-1).tolist() == [1, 0, IGNORED]
    for wrong in (-1, 3, 6, 80000):
        with pytest.raises(TaskError, match=f"hold {wrong}; the classes have 0, 5"):
            class_indices(np.array([0, 5, wrong]), ("0", "5"))


def test_values_below_zero_are_refused_or_ignored_where_that_is_said(tmp_path):
    label = np.zeros((8, 8, 8), np.int16)
    label[2:5, 2:5, 2:5], label[7] = 3, -1
    root = pairs(tmp_path, label, label)
    with pytest.raises(TaskError, match=r"found -1 in 2 label maps, such as that of c0.*ignore-label -1"):
        labelled(root)
    task, data = labelled(root, ignore_label=-1)
    assert data.classes == ("0", "3")
    assert task.mask_values(data.classes) == (0, 3)
    expected = np.where(label == 3, 1, np.where(label == -1, IGNORED, 0))
    assert np.array_equal(task.reference(data, "c1"), expected)
    sample = task.samples(data, ["c0"], seed=0, batch_size=1)[0]
    assert set(np.unique(sample["label"])) <= {IGNORED, 0, 1}


def test_metrics_are_named_by_value_where_there_are_no_names(tmp_path):
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5], label[6, 2:5, 2:5] = 5, 205
    task, data = labelled(pairs(tmp_path, label))
    assert task.regions(data.classes) == {"5": (1,), "205": (2,)}


@pytest.mark.parametrize("kind", ["dice_ce", "dice_balanced_ce", "dice"])
def test_an_ignored_voxel_takes_part_in_no_loss(kind):
    task = Segmentation(Path("data"), loss_function=kind)
    logits = torch.tensor([[[0.0, 2.0, -1.0, 30.0]], [[1.0, 0.0, 1.0, -30.0]]])[
        None, :, None
    ]  # (1, 2, 1, 1, 4)
    label = torch.tensor([[[[[1, 0, 1, IGNORED]]]]])
    found = float(task.loss(nn.Identity(), {"image": logits, "label": label})["loss"])
    # By hand, of the three voxels that count: p is the probability of class 1.
    p = 1 / (1 + np.exp(-np.array([1.0, -2.0, 2.0])))
    truth = np.array([1, 0, 1])
    smooth = 1.0 if kind == "dice" else 1e-5
    dice = 1 - (2 * (p * truth).sum() + smooth) / (p.sum() + truth.sum() + smooth)
    entropies = -np.log(np.where(truth, p, 1 - p))
    # Balanced: the two voxels of class 1 together weigh sqrt(2) times what the one of class 0 does.
    shares = np.array([2**0.5, 1]) / (2**0.5 + 1)
    balanced = shares @ [entropies[truth == 1].mean(), entropies[truth == 0].mean()]
    entropy = {"dice_ce": entropies.mean(), "dice_balanced_ce": balanced, "dice": 0}[kind]
    assert found == pytest.approx(dice + entropy, abs=1e-6)
    nothing = task.loss(nn.Identity(), {"image": logits, "label": torch.full_like(label, IGNORED)})["loss"]
    assert torch.isfinite(nothing)


def test_an_ignored_voxel_takes_part_in_no_metric():
    reference = np.zeros((4, 6, 6), np.int64)
    reference[1:3, 1:3, 1:3], reference[:, :, 4:] = 1, IGNORED
    prediction = np.zeros_like(reference)
    prediction[1:3, 1:3, 1:4], prediction[:, :, 4:] = 1, 1  # one voxel too wide, and wild where nobody looked
    probabilities = np.stack([1.0 - prediction, prediction]).astype(np.float32)
    scores = RegionScores(class_regions(("background", "ball")))

    def share(classes: tuple[int, ...]) -> np.ndarray:
        return probabilities[list(classes)].sum(axis=0)

    row = scores.score(prediction, reference, share, spacing_mm=(1.0, 1.0, 1.0), surface=True)
    assert row["dice_ball"] == pytest.approx(2 * 8 / (8 + 12))
    assert row["hd95_mm_ball"] == pytest.approx(1.0)
    # Of 96 voxels that count, 12 are found, 8 of them rightly: foreground 8/12, background 84/88.
    assert row["mean_iou_thresholds_ball"] == pytest.approx((8 / 12 + 84 / 88) / 2, abs=1e-6)
    assert scores.pooled()["dice_ball_pooled"] == pytest.approx(0.8)
    everything = np.full_like(reference, IGNORED)
    row = scores.score(prediction, everything, share, spacing_mm=(1.0, 1.0, 1.0), surface=False)
    assert np.isnan([row["dice_ball"], row["mean_iou_thresholds_ball"]]).all()


def test_a_class_called_mean_is_not_the_mean():
    assert class_regions(("background", "mean", "left kidney", "a_pooled")) == {
        "class_mean": (1,),
        "left_kidney": (2,),
        "class_a_pooled": (3,),
    }
