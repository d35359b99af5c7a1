from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from parts2whole.evaluation.metrics import MetricError, auc, iou
from parts2whole.evaluation.probes import (
    ProbeError,
    fit_voxel_probes,
    knn_probe,
    linear_probe,
    score_voxel_probes,
    upsampled_pyramid,
    voxel_probe,
)
from parts2whole.networks.unet3d import UNet3D


class Averages(nn.Module):
    """A pyramid that says what it saw: the image, and its averages over blocks of 2 and 4 voxels."""

    divisor = 4
    norm = "batch"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        assert all(edge % 4 == 0 for edge in x.shape[2:])
        coarse = nn.functional.avg_pool3d(x, 4)
        return x, nn.functional.avg_pool3d(x, 2), torch.cat([coarse, -coarse], dim=1)


def volume(
    seed: int, *, features: int = 6, size: tuple[int, int, int] = (8, 9, 10)
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy features whose first two tell the classes 0, 1 (rare) and 2 (rare)."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(size, int)
    labels[2:4, 2:5, 2:5], labels[5:7, 5:8, 5:8] = 1, 2
    found = generator.normal(0, 0.3, (features, *size))
    found[0] += labels == 1
    found[1] += labels == 2
    # Scales and offsets that only standardisation makes harmless.
    return (found * 10.0 ** np.arange(features)[:, None, None, None] + 7).astype(np.float32), labels


@pytest.mark.parametrize("size", [(8, 8, 8), (5, 9, 6), (1, 3, 2)])
def test_the_pyramid_has_the_size_of_the_image(size: tuple[int, int, int]) -> None:
    image = torch.rand(1, 1, *size)
    found = upsampled_pyramid(Averages(), image)
    assert found.shape == (4, *size)
    torch.testing.assert_close(found[0], image[0, 0])
    torch.testing.assert_close(found[2], -found[3])
    assert upsampled_pyramid(Averages(), image, levels=(1,)).shape == (1, *size)
    torch.testing.assert_close(upsampled_pyramid(Averages(), image, levels=(-1, 0))[2], image[0, 0])


def test_levels_stay_in_place_when_upsampled() -> None:
    # The averages of a ramp, interpolated linearly, are the ramp again (away from the border).
    ramp = torch.arange(16.0).expand(1, 1, 8, 8, 16).contiguous()
    found = upsampled_pyramid(Averages(), ramp)
    for level in (1, 2):
        torch.testing.assert_close(found[level, 4, 4, 2:14], torch.arange(2.0, 14.0))


def test_padding_repeats_the_border() -> None:
    found = upsampled_pyramid(Averages(), torch.ones(1, 1, 5, 6, 7))
    torch.testing.assert_close(found[:3], torch.ones(3, 5, 6, 7))


def test_a_real_encoder() -> None:
    encoder = UNet3D("tiny").build_encoder(1).eval()
    found = upsampled_pyramid(encoder, torch.rand(1, 1, 9, 12, 10))
    assert found.shape == (8 + 16 + 32 + 64, 9, 12, 10)
    assert not found.requires_grad


def test_voxels_that_features_tell_apart() -> None:
    train, test = [volume(i) for i in range(2)], [volume(i) for i in range(10, 13)]
    found = voxel_probe(train, test)
    assert set(found) == {"iou_1", "iou_2", "iou_mean"}
    assert found["iou_mean"] == pytest.approx((found["iou_1"] + found["iou_2"]) / 2)
    assert found["iou_mean"] > 0.6
    noise = [(np.random.default_rng(i).normal(size=f.shape), y) for i, (f, y) in enumerate(train + test)]
    assert voxel_probe(noise[:2], noise[2:])["iou_mean"] < 0.1


def test_the_voxel_probe_is_a_logistic_regression() -> None:
    # Two classes, every voxel sampled: minimise the penalised loss by hand, and label by hand.
    train, test = volume(0, features=3), volume(1, features=3)
    train, test = [(f, (y == 1).astype(int)) for f, y in (train, test)]
    x, y = train[0].reshape(3, -1).T.astype(float), train[1].ravel()
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    s = (x - mean) / deviation

    def loss(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -(2 * y - 1) * (s @ w[:3] + w[3])).sum() + 0.5 * (w[:3] ** 2).sum())

    w = optimize.minimize(loss, np.zeros(4), method="BFGS").x
    logits = (test[0].reshape(3, -1).T - mean) / deviation @ w[:3] + w[3]
    expected = iou(logits > 0, test[1].ravel() == 1)
    assert 0 < expected < 1
    assert voxel_probe([train], [test], voxels_per_volume=10**6)["iou_1"] == pytest.approx(expected, abs=0.02)


def test_several_penalties_from_one_reading_are_as_each_alone() -> None:
    train, test = [volume(i) for i in range(2)], [volume(i) for i in range(10, 13)]
    models = fit_voxel_probes(iter(train), (10.0, 0.001), seed=3)
    together = score_voxel_probes(models, iter(test))
    for C, found in together.items():
        assert found == pytest.approx(voxel_probe(train, test, C=C, seed=3), abs=0.005)
    assert together[10.0]["iou_mean"] > together[0.001]["iou_mean"], "so strong a penalty must cost something"


def test_a_probe_of_classes_that_would_share_a_column_is_refused() -> None:
    models = fit_voxel_probes([volume(0)], (1.0,))
    named = score_voxel_probes(models, [volume(1)], classes=("nothing", "GTV+", "node"))[1.0]
    assert set(named) == {"iou_GTV", "iou_node", "iou_mean"}
    with pytest.raises(MetricError, match="are alike in tables"):
        score_voxel_probes(models, [volume(1)], classes=("nothing", "GTV+", "GTV-"))


def test_the_true_shares_of_classes_help_a_rare_one() -> None:
    train, test = [volume(i) for i in range(2)], [volume(i) for i in range(10, 13)]
    sizes = {"voxels_per_volume": 54}  # 18 a class, though background is 36 times as common
    assert (
        voxel_probe(train, test, **sizes)["iou_mean"]
        > voxel_probe(train, test, natural_prior=False, **sizes)["iou_mean"]
    )


def test_a_class_that_training_lacks_counts_as_missed() -> None:
    features, labels = volume(0)
    found = voxel_probe([(features, np.where(labels == 2, 0, labels))], [volume(1)])
    assert found["iou_2"] == 0
    assert found["iou_1"] > 0.1
    assert found["iou_mean"] == found["iou_1"] / 2


def test_the_probe_is_repeatable_and_streams() -> None:
    alive: list[int] = []

    def stream(seeds: range) -> object:
        for seed in seeds:
            alive.append(seed)
            yield torch.from_numpy(volume(seed)[0]), torch.from_numpy(volume(seed)[1])

    first = voxel_probe(stream(range(2)), stream(range(10, 12)), seed=4, voxels_per_volume=60)  # type: ignore[arg-type]
    again = voxel_probe([volume(0), volume(1)], [volume(10), volume(11)], seed=4, voxels_per_volume=60)
    assert first == again
    assert alive == [0, 1, 10, 11]
    assert first != voxel_probe(
        [volume(0), volume(1)], [volume(10), volume(11)], seed=5, voxels_per_volume=60
    )


def test_a_constant_feature_does_no_harm() -> None:
    def dead(seed: int) -> tuple[np.ndarray, np.ndarray]:
        features, labels = volume(seed)
        return np.concatenate(
            [features, np.zeros_like(features[:1]), np.full_like(features[:1], 1e6)]
        ), labels

    expected = voxel_probe([volume(0)], [volume(1)])["iou_mean"]
    assert voxel_probe([dead(0)], [dead(1)])["iou_mean"] == pytest.approx(expected, abs=0.03)


def items(seed: int, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return (generator.normal(0, 1, (n, 8)) + 1.5 * np.eye(8)[y]) * 100 + 50, y


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_probe_reads_what_is_there(classes: int) -> None:
    found = linear_probe(*items(0, 80, classes), *items(1, 200, classes))
    assert found["auc"] > 0.8
    assert found["balanced_accuracy"] > 1.5 / classes
    x, y = items(0, 80, classes)
    blind = linear_probe(np.random.default_rng(0).normal(size=x.shape), y, *items(1, 200, classes))
    assert blind["auc"] < 0.7


def test_linear_probe_of_one_feature_ranks_by_it() -> None:
    x, y = items(0, 60, 2)
    found = linear_probe(x[:, :1], y, x[:, :1], y)
    assert found["auc"] == pytest.approx(auc(-x[:, 0], y == 1))


@pytest.mark.parametrize("classes", [2, 3])
def test_knn_against_scikit_learn(classes: int) -> None:
    (x, y), (x_test, y_test) = items(0, 50, classes), items(1, 90, classes)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    reference = KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp(-distance / 0.1))
    reference.fit((x - mean) / deviation, y)
    p = reference.predict_proba((x_test - mean) / deviation)
    expected = (
        auc(p[:, 1], y_test == 1) if classes == 2 else np.mean([auc(p[:, c], y_test == c) for c in range(3)])
    )
    assert knn_probe(x, y, x_test, y_test, k=7)["auc"] == pytest.approx(expected)


def test_the_nearest_neighbour_of_itself() -> None:
    x, y = items(0, 30, 3)
    assert knn_probe(torch.from_numpy(x), torch.from_numpy(y), x, y, k=1)["balanced_accuracy"] == 1


def test_what_can_not_be_probed_is_refused() -> None:
    x, y = items(0, 20, 2)
    f, labels = volume(0)
    for call, message in (
        (lambda: upsampled_pyramid(Averages(), torch.rand(1, 8, 8, 8)), "one volume"),
        (lambda: upsampled_pyramid(Averages(), torch.rand(1, 1, 8, 8, 8), levels=(3,)), "has 3"),
        (lambda: voxel_probe([], [(f, labels)]), "no training volume"),
        (lambda: voxel_probe([(f, labels)], []), "no test volume"),
        (lambda: voxel_probe([(f, labels[1:])], [(f, labels)]), "features"),
        (lambda: voxel_probe([(f, labels * 0)], [(f, labels)]), "class 0 only"),
        (lambda: voxel_probe([(f, labels), (f[1:], labels)], [(f, labels)]), r"\[5, 6\] features"),
        (lambda: voxel_probe([(f, labels)], [(f[1:], labels)]), "trained on 6 features, tested on 5"),
        (lambda: voxel_probe([(f * np.nan, labels)], [(f, labels)]), "finite"),
        (lambda: linear_probe(x, y[1:], x, y), "labels"),
        (lambda: linear_probe(x, y * 0, x, y), "class 0 only"),
        (lambda: linear_probe(x, y - 1, x, y), "from 0"),
        (lambda: linear_probe(x, y, x[:, 1:], y), "8 features, test 7"),
        (lambda: knn_probe(x, y, x, y, k=21), "from 1 to the 20"),
    ):
        with pytest.raises(ProbeError, match=message):
            call()
