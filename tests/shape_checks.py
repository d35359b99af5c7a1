"""Shapes that public tensor functions are annotated with, checked at every call that a test makes."""

from __future__ import annotations

from beartype import BeartypeConf, beartype
from jaxtyping import Float, Int, install_import_hook

from parts2whole import shapes

MODULES = [
    "parts2whole.evaluation.inference",
    "parts2whole.methods.contrast",
    "parts2whole.networks.heads",
    "parts2whole.wholes.geometry",
]

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""As type checkers do, it takes 1 for a float."""


def install() -> None:
    """Check the modules, from their import on."""
    shapes.Float, shapes.Int = Float, Int
    install_import_hook(MODULES, f"{__name__}.check_types")
