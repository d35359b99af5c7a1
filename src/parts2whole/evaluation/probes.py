"""Probes of frozen features: how much of a target a simple classifier can read off an encoder.

A probe is fast and far less noisy than fine-tuning, so it can choose settings on validation data. Each
standardises features by the training set's mean and deviation, and is deterministic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.evaluation.metrics import classification_metrics, iou, nanmean
from parts2whole.evaluation.regions import IGNORED, metric_names

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
MAX_ITERATIONS = 5000
PREDICTED_AT_ONCE = 65536


class ProbeError(Parts2WholeError, ValueError):
    """Features and labels that can't be probed."""


class PyramidEncoder(Protocol):
    """What a probe needs of an encoder: feature maps finest first, and the divisor of its input edges."""

    @property
    def divisor(self) -> int:
        """Input edges must be multiples of this many voxels."""

    def __call__(self, x: Tensor, /) -> tuple[Tensor, ...]:
        """(B, C, D, H, W) to feature maps (B, F, d, h, w), finest first."""


@torch.no_grad()
def upsampled_pyramid(
    encoder: PyramidEncoder, image: Tensor, *, levels: Sequence[int] | None = None
) -> Tensor:
    """Feature maps of an encoder at the resolution of its input, stacked.

    The image is padded by its border voxels to the multiple that the encoder needs, every level is
    upsampled by trilinear interpolation, and the padding is cropped again. Put the encoder in eval mode.

    Args:
        encoder: maps (B, C, D, H, W) to a tuple of feature maps, finest first.
        image: (1, C, D, H, W).
        levels: which levels, 0 is the finest, -1 the coarsest; default all.

    Returns:
        (F, D, H, W), F the sum of the levels' widths.

    Raises:
        ProbeError: not one volume, or a level that the encoder doesn't have.
    """
    if image.ndim != 5 or image.shape[0] != 1:
        raise ProbeError(f"the image must be one volume (1, C, D, H, W), got {tuple(image.shape)}")
    shape = image.shape[2:]
    missing = [-edge % encoder.divisor for edge in shape]
    before = [pad // 2 for pad in missing]
    pads = [
        side
        for pad, low in zip(reversed(missing), reversed(before), strict=True)
        for side in (low, pad - low)
    ]
    padded = F.pad(image, pads, mode="replicate")
    pyramid = encoder(padded)
    if levels is not None and not all(-len(pyramid) <= level < len(pyramid) for level in levels):
        raise ProbeError(f"levels {tuple(levels)}: the encoder has {len(pyramid)}, 0 is the finest")
    chosen = pyramid if levels is None else [pyramid[level] for level in levels]
    size = padded.shape[2:]
    full = [F.interpolate(m, size, mode="trilinear") if m.shape[2:] != size else m for m in chosen]
    z, y, x = (slice(low, low + edge) for low, edge in zip(before, shape, strict=True))
    return torch.cat([m[0, :, z, y, x] for m in full])


def voxel_probe(
    train: Iterable[tuple[Array | Tensor, Array | Tensor]],
    test: Iterable[tuple[Array | Tensor, Array | Tensor]],
    *,
    C: float = 1.0,
    voxels_per_volume: int = 4000,
    natural_prior: bool = True,
    seed: int = 0,
) -> dict[str, float]:
    """IoU of a multinomial logistic regression from the features of a voxel to its class.

    It learns from a random sample of every training volume, with equally many voxels of each class (all
    of them where there are fewer), and labels every voxel of the test volumes. Both sides are read one
    volume at a time: given generators, features of all volumes are never in memory together.

    Args:
        train: features (F, D, H, W) and class indices (D, H, W) of every training volume.
        test: the same of every test volume.
        C: inverse strength of the L2 penalty, against the loss summed over the sampled voxels.
        voxels_per_volume: size of a volume's sample, all classes together.
        natural_prior: afterwards shift the intercepts from the sample's shares of the classes to their
            true shares, without which a rare class is found everywhere and IoU suffers.
        seed: of the samples.

    Returns:
        ``iou_1`` and so on, by foreground class the mean over test volumes that hold it or in which it
        was found, and ``iou_mean``, the mean over classes.

    Raises:
        ProbeError: no volume, features and labels on different grids, different numbers of features,
            features that aren't finite, or a single class in training.
    """
    models = fit_voxel_probes(
        train, [C], voxels_per_volume=voxels_per_volume, natural_prior=natural_prior, seed=seed
    )
    return score_voxel_probes(models, test)[C]


def fit_voxel_probes(
    train: Iterable[tuple[Array | Tensor, Array | Tensor]],
    penalties: Sequence[float],
    *,
    voxels_per_volume: int = 4000,
    natural_prior: bool = True,
    seed: int = 0,
) -> dict[float, LinearModel]:
    """The models of `voxel_probe` for several strengths of the penalty, from one reading of the volumes.

    Args and errors are those of `voxel_probe`; ``penalties`` are values of its ``C``.
    """
    generator = np.random.default_rng(seed)
    sampled: list[tuple[Array, Array]] = []
    counts: dict[int, int] = {}
    for volume in train:
        rows, targets = _voxels(*volume)
        if not len(targets):
            continue
        chosen = _balanced_sample(targets, voxels_per_volume, generator)
        sampled.append((rows[:, chosen].T, targets[chosen]))
        for label, count in zip(*np.unique(targets, return_counts=True), strict=True):
            counts[int(label)] = counts.get(int(label), 0) + int(count)
    if not sampled:
        raise ProbeError("there is no training volume")
    if len({x.shape[1] for x, _ in sampled}) > 1:
        raise ProbeError(f"training volumes have {sorted({x.shape[1] for x, _ in sampled})} features")
    labels = np.concatenate([y for _, y in sampled])
    models = _fit(np.concatenate([x for x, _ in sampled]), labels, penalties)
    if natural_prior:
        shares = np.log([counts[int(c)] / int((labels == c).sum()) for c in np.unique(labels)])
        models = {C: dataclasses.replace(m, intercept=m.intercept + shares) for C, m in models.items()}
    return models


def score_voxel_probes(
    models: Mapping[float, LinearModel],
    test: Iterable[tuple[Array | Tensor, Array | Tensor]],
    *,
    classes: Sequence[str] = (),
) -> dict[float, dict[str, float]]:
    """What `voxel_probe` returns, for each of several models, from one reading of the volumes.

    Figures end in the names of ``classes``, or else in their indices.

    Raises:
        ProbeError: there is no volume.
        MetricError: as `parts2whole.evaluation.regions.metric_names`.
    """
    names = metric_names(classes)
    scores: dict[float, dict[int, list[float]]] = {
        C: {int(c): [] for c in model.classes if c} for C, model in models.items()
    }
    for volume in test:
        rows, targets = _voxels(*volume)
        there = {int(c) for c in np.unique(targets) if c}
        for C, model in models.items():
            found = model.classes[model.logits(rows.T).argmax(axis=1)]
            for c in sorted({*scores[C], *there}):
                scores[C].setdefault(c, []).append(iou(found == c, targets == c))
    if not all(any(of_class.values()) for of_class in scores.values()):
        raise ProbeError("there is no test volume")
    by_class = {
        C: {f"iou_{names.get(c, c)}": nanmean(values) for c, values in sorted(of_class.items())}
        for C, of_class in scores.items()
    }
    return {C: found | {"iou_mean": nanmean(list(found.values()))} for C, found in by_class.items()}


def linear_probe(
    train_x: Array | Tensor,
    train_y: Array | Tensor,
    test_x: Array | Tensor,
    test_y: Array | Tensor,
    *,
    C: float = 1.0,
) -> dict[str, float]:
    """Logistic regression from features to classes, every class weighted alike.

    Args:
        train_x: (n, F) features.
        train_y: (n,) class indices.
        test_x: (m, F).
        test_y: (m,).
        C: inverse strength of the L2 penalty, against the loss summed over the training items.

    Returns:
        `classification_metrics` of the test items: AUC, average precision, balanced accuracy.

    Raises:
        ProbeError: shapes that don't fit, features that aren't finite, or a single class in training.
    """
    x, y, x_test, y_test = _items(train_x, train_y, test_x, test_y)
    model = _fit(x, y, [C], balanced=True)[C]
    logits = model.logits(x_test)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = np.zeros((len(y_test), 1 + int(max(y.max(), y_test.max()))))
    probabilities[:, model.classes] = odds / odds.sum(axis=1, keepdims=True)
    return classification_metrics(probabilities, y_test)


def knn_probe(
    train_x: Array | Tensor,
    train_y: Array | Tensor,
    test_x: Array | Tensor,
    test_y: Array | Tensor,
    *,
    k: int = 10,
    temperature: float = 0.1,
) -> dict[str, float]:
    """Vote of the k nearest training items by cosine, each weighing exp(cosine / temperature).

    Takes and returns what `linear_probe` does; nothing is learned but the standardisation.

    Raises:
        ProbeError: as `linear_probe`, or ``k`` above the number of training items.
    """
    x, y, x_test, y_test = _items(train_x, train_y, test_x, test_y)
    if not 1 <= k <= len(x):
        raise ProbeError(f"k must be from 1 to the {len(x)} training items, got {k}")
    mean, deviation = _standard(x)
    cosine = _unit((x_test - mean) / deviation) @ _unit((x - mean) / deviation).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    weights = np.exp((np.take_along_axis(cosine, nearest, axis=1) - 1) / temperature)
    classes = np.arange(1 + int(max(y.max(), y_test.max())))
    votes = (weights[:, :, None] * (y[nearest][:, :, None] == classes)).sum(axis=1)
    return classification_metrics(votes / votes.sum(axis=1, keepdims=True), y_test)


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """A fitted linear classifier: logits = x weights^T + intercept."""

    classes: npt.NDArray[np.int64]
    weights: Floats
    intercept: Floats

    def logits(self, x: Array) -> Floats:
        """(n, features) to (n, classes)."""
        if x.shape[1] != self.weights.shape[1]:
            raise ProbeError(f"trained on {self.weights.shape[1]} features, tested on {x.shape[1]}")
        blocks = (x[i : i + PREDICTED_AT_ONCE] for i in range(0, len(x), PREDICTED_AT_ONCE))
        return (
            np.concatenate([block.astype(np.float64) @ self.weights.T for block in blocks]) + self.intercept
        )


def _fit(
    x: Array, y: Array, penalties: Sequence[float], *, balanced: bool = False
) -> dict[float, LinearModel]:
    """Multinomial logistic regressions of standardised features, written for the features as they are.

    The strongest penalty is fitted first, and each fit starts where the one before ended: with a weak
    penalty the way from zero is long.
    """
    if len(np.unique(y)) < 2:
        raise ProbeError(f"the training labels hold class {y[0]} only; a probe needs two or more")
    mean, deviation = _standard(x)
    standardised = (x - mean) / deviation
    regression = LogisticRegression(
        max_iter=MAX_ITERATIONS, class_weight="balanced" if balanced else None, warm_start=True
    )
    models = {}
    for C in sorted(penalties):
        fitted = regression.set_params(C=C).fit(standardised, y)
        weights = fitted.coef_ / deviation
        intercept = fitted.intercept_ - weights @ mean
        if len(weights) == 1:  # two classes: scikit-learn keeps the logit of the second alone
            weights, intercept = np.vstack([0 * weights, weights]), np.array([0.0, *intercept])
        models[C] = LinearModel(fitted.classes_, weights, intercept)
    return models


def _standard(x: Array) -> tuple[Floats, Floats]:
    """Mean and deviation of every feature; 1 for a constant one."""
    mean, deviation = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    return mean, np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-12), deviation, 1.0)


def _voxels(features: Array | Tensor, labels: Array | Tensor) -> tuple[Array, npt.NDArray[np.int64]]:
    """(F, voxels) and (voxels,) of the voxels that aren't ignored."""
    x, y = _array(features), _array(labels)
    if x.ndim != 4 or x.shape[1:] != y.shape:
        raise ProbeError(f"expected features (F, D, H, W) and labels (D, H, W), got {x.shape} and {y.shape}")
    if not np.isfinite(x).all():
        raise ProbeError("features hold values that aren't finite")
    x, y = x.reshape(len(x), -1), y.reshape(-1).astype(np.int64)
    counted = y != IGNORED
    return (x, y) if counted.all() else (x[:, counted], y[counted])


def _balanced_sample(labels: Array, size: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Places of equally many voxels of every class, about ``size`` together."""
    places = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    share = max(1, size // len(places))
    return np.concatenate([generator.choice(p, min(share, len(p)), replace=False) for p in places])


def _items(*given: Array | Tensor) -> tuple[Floats, Array, Floats, Array]:
    """Features and labels of training and test, checked."""
    x, y, x_test, y_test = (_array(a) for a in given)
    for features, labels in ((x, y), (x_test, y_test)):
        if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
            raise ProbeError(
                f"expected features (n, F) and labels (n,), got {features.shape} and {labels.shape}"
            )
        if not np.isfinite(features).all():
            raise ProbeError("features hold values that aren't finite")
        if labels.min() < 0:
            raise ProbeError(f"labels must be class indices from 0, got {labels.min()}")
    if x.shape[1] != x_test.shape[1]:
        raise ProbeError(f"training has {x.shape[1]} features, test {x_test.shape[1]}")
    return x.astype(np.float64), y.astype(np.int64), x_test.astype(np.float64), y_test.astype(np.int64)


def _unit(x: Floats) -> Floats:
    unit: Floats = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return unit


def _array(values: Array | Tensor) -> Array:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
