"""Shapes of tensors as types: ``Float[Tensor, "b c d h w"]``; equal letters are equal lengths.

They are for readers, and for tests, which put the names of jaxtyping here and have every call checked
(tests/shape_checks.py).  Elsewhere nobody evaluates them, and jaxtyping need not be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Float as Float
    from jaxtyping import Int as Int
else:
    Float: Any = None
    Int: Any = None
