"""Do embeddings compose: is a place found again, a whole the sum of its parts, a part what is left of it?

After Hosseinzadeh Taher, Gotway, Liang: Representing Part-Whole Hierarchies in Foundation Models by Learning
Localizability, Composability, and Decomposability from Anatomy via Self-Supervision (CVPR 2024, arXiv
2404.15672), who teach a network these properties. Here nothing is taught, and the definitions are ours: each
is a question with one right answer among several, so that it has a value by chance. Wholes are cut into k
parts that fill them (the eight octants); e is an embedding, as the encoder gives it:

- *place*: the nearest to e(part, moved a little) is e(part), among the parts of its whole; chance 1 / k.
- *part*: the same among the parts of all wholes; chance 1 / (wholes x k).
- *sum*: the nearest to the sum of e(parts) is e(whole), among all wholes; chance 1 / wholes.
- *rest*: the nearest to k e(whole) - sum of e(the other parts) is e(part), among the parts of all wholes at
  the same place; chance 1 / wholes. The part's own embedding is not in what is looked up.

Nearest is by cosine; equally near ones count in part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.evaluation.contrast import ContrastError
from parts2whole.evaluation.retrieval import cosines, retrieval_scores

Array = npt.NDArray[Any]


def composition_scores(wholes: Array, parts: Array, moved: Array) -> dict[str, float]:
    """How well embeddings compose, beside chance.

    Args:
        wholes: (wholes, features).
        parts: (wholes, k, features), of k parts that fill each whole, in the same order for all.
        moved: (wholes, k, features), of the same parts moved a little.

    Returns:
        ``place_top1``, ``part_top1``, ``sum_top1`` and ``rest_top1``, each with its ``..._chance``, and of
        sum and rest the mean cosine with the right one, ``..._cosine``, and with those of other wholes,
        ``..._cosine_others`` (nan for a single whole).

    Raises:
        ContrastError: embeddings that can't be compared.
    """
    if parts.ndim != 3 or parts.shape != moved.shape or len(parts) != len(wholes):
        raise ContrastError(
            f"expected (wholes, features) and twice (wholes, k, features), got {wholes.shape}, {parts.shape} "
            f"and {moved.shape}"
        )
    count, k, _ = parts.shape
    total = parts.sum(axis=1)
    rest = k * wholes[:, None] - (total[:, None] - parts)
    found = {
        "place": [_ask(moved[i], parts[i]) for i in range(count)],
        "part": [_ask(moved.reshape(count * k, -1), parts.reshape(count * k, -1))],
        "sum": [_ask(total, wholes)],
        "rest": [_ask(rest[:, place], parts[:, place]) for place in range(k)],
    }
    scores: dict[str, float] = {}
    for name, answers in found.items():
        top1, chance, own, others = np.mean(answers, axis=0)
        scores |= {f"{name}_top1": float(top1), f"{name}_chance": float(chance)}
        if name in ("sum", "rest"):
            scores |= {f"{name}_cosine": float(own), f"{name}_cosine_others": float(others)}
    return scores


def _ask(asked: Array, among: Array) -> tuple[float, float, float, float]:
    """Of n questions whose answers are the same rows of ``among``: right, chance, cosine right and wrong."""
    scores = retrieval_scores(asked[:, None], among)
    cosine = cosines(asked, among)
    wrong = cosine[~np.eye(len(cosine), dtype=bool)]
    own = float(np.diag(cosine).mean())
    return (
        scores["retrieval_top1"],
        scores["retrieval_chance"],
        own,
        float(wrong.mean()) if len(wrong) else np.nan,
    )
