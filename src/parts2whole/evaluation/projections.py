"""Embeddings in the plane: PCA, t-SNE, and UMAP where it is installed; deterministic."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

Array = npt.NDArray[Any]
EXACT = 500
"""Up to so many points the exact t-SNE is the faster one, too."""
SLOWEST = 10.0
"""Least learning rate; scikit-learn's own, 50, throws few points about."""
MOST_COMPONENTS = 50
"""t-SNE and UMAP work on so many principal components at most."""


def project(features: Array, *, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Points of the plane for every method there is: ``t-SNE``, ``PCA`` and, if installed, ``UMAP``.

    Args:
        features: (n, features), n of 4 or more; scaled to unit length first.
        seed: of the methods that draw.

    Returns:
        (n, 2) by method. t-SNE (van der Maaten and Hinton 2008) starts at PCA, with a perplexity of 30 or,
        for few points, a quarter of them. Neither its axes nor its distances between groups mean anything.
    """
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    count = min(MOST_COMPONENTS, len(units) - 1, units.shape[1])
    components = PCA(n_components=count, random_state=seed).fit_transform(units.astype(np.float64))
    # The sign of a component is arbitrary: make its largest value positive, so that runs can be compared.
    largest = components[np.abs(components).argmax(axis=0), np.arange(count)]
    components = components * np.where(largest < 0, -1, 1)
    plane = np.pad(components[:, :2], ((0, 0), (0, max(0, 2 - count))))
    spread = max(float(components[:, 0].std()), 1e-12)
    found = {
        "t-SNE": TSNE(
            perplexity=min(30.0, len(units) / 4),
            init=plane / spread * 1e-4,
            method="exact" if len(units) <= EXACT else "barnes_hut",
            learning_rate=max(SLOWEST, len(units) / 48),
            random_state=seed,
        ).fit_transform(components),
        "PCA": plane,
    }
    if importlib.util.find_spec("umap") is not None:
        import umap

        neighbours = min(15, len(units) - 1)
        found["UMAP"] = umap.UMAP(n_neighbors=neighbours, random_state=seed).fit_transform(components)
    return {name: np.asarray(points, np.float32) for name, points in found.items()}
