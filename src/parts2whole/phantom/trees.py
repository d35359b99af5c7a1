"""Branching vessels: trees that grow from a root to points spread through an organ."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from parts2whole.phantom.canvas import Tubes

MURRAY = 2.6
"""Exponent by which the radii of daughters add up to their parent's; Murray's law has 3, lungs less."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
    """A tree of vessels.

    Attributes:
        nodes_mm: (n, 3) positions; node 0 is the root.
        parent: (n,) index of the node before; the root's is 0.
        radius_mm: (n,) of the vessel that leads to a node.
        bends_mm: (n, 3) middle of the vessel that leads to a node.
    """

    nodes_mm: npt.NDArray[np.float64]
    parent: npt.NDArray[np.int64]
    radius_mm: npt.NDArray[np.float64]
    bends_mm: npt.NDArray[np.float64]

    def tubes(self) -> Tubes:
        """Two straight pieces for each vessel, those that lead to a node first."""
        start, end, bend = self.nodes_mm[self.parent[1:]], self.nodes_mm[1:], self.bends_mm[1:]
        radius = self.radius_mm[1:]
        before = np.minimum(self.radius_mm[self.parent[1:]], 1.15 * radius)
        first = np.stack([before, radius], axis=1)
        last = np.stack([radius, radius], axis=1)
        return Tubes(bend, end, last).joined(Tubes(start, bend, first))

    def chain(self, node: int, length_mm: float) -> list[int]:
        """Nodes from one towards the root, until ``length_mm`` have been gone."""
        found = [node]
        gone = 0.0
        while found[-1] != 0 and gone < length_mm:
            before = int(self.parent[found[-1]])
            gone += float(np.linalg.norm(self.nodes_mm[found[-1]] - self.nodes_mm[before]))
            found.append(before)
        return found


def grow_tree(
    root_mm: npt.ArrayLike,
    heading: npt.ArrayLike,
    targets_mm: npt.NDArray[np.float64],
    *,
    leaf_radius_mm: float,
    generator: np.random.Generator,
) -> Tree:
    """Grow a tree that reaches every target, near ones first, with few sharp turns.

    Args:
        root_mm: where it begins.
        heading: direction of the vessel that leads there.
        targets_mm: (n, 3) points to reach.
        leaf_radius_mm: radius of the last vessels; others follow from how many of these they feed.
        generator: for the bends.
    """
    root = np.asarray(root_mm, dtype=float)
    order = np.argsort(np.linalg.norm(targets_mm - root, axis=1), kind="stable")
    nodes = np.concatenate([root[None], targets_mm[order]])
    headings = np.zeros_like(nodes)
    headings[0] = np.asarray(heading, dtype=float) / np.linalg.norm(heading)
    parent = np.zeros(len(nodes), dtype=np.int64)
    for number in range(1, len(nodes)):
        offsets = nodes[number] - nodes[:number]
        lengths = np.maximum(np.linalg.norm(offsets, axis=1), 1e-6)
        turns = 1 - (offsets * headings[:number]).sum(axis=1) / lengths
        best = int(np.argmin(lengths * (1 + 0.9 * turns)))
        parent[number] = best
        headings[number] = offsets[best] / lengths[best]
    leaves = np.ones(len(nodes))
    for number in range(len(nodes) - 1, 0, -1):
        leaves[parent[number]] += leaves[number]
    middle = (nodes + nodes[parent]) / 2
    lengths = np.linalg.norm(nodes - nodes[parent], axis=1, keepdims=True)
    bends = middle + generator.normal(0, 0.07, nodes.shape) * lengths
    return Tree(nodes, parent, leaf_radius_mm * leaves ** (1 / MURRAY), bends)
