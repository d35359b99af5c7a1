"""Codes of classes: what a segment is, in words of a terminology, read from a small YAML.

    liver:
      category: [123037004, SCT, Anatomical Structure]
      type: [10200004, SCT, Liver]
    left kidney:
      category: [123037004, SCT, Anatomical Structure]
      type: [64033007, SCT, Kidney]
      modifier: [7771000, SCT, Left]

A code is its value, the scheme that defines it (SCT is SNOMED CT, DCM is DICOM's own) and its meaning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from parts2whole.errors import Parts2WholeError, name_some

EXAMPLE = "category: [123037004, SCT, Anatomical Structure], type: [10200004, SCT, Liver]"
LONGEST_LABEL = 64
"""Characters of a segment's label, and of a code's meaning, in DICOM."""

LONGEST = (16, 16, LONGEST_LABEL)
"""Characters of a code's value, scheme and meaning."""


class CodesError(Parts2WholeError, ValueError):
    """A file of codes that can't be used, or a class without a code."""


@dataclasses.dataclass(frozen=True)
class Code:
    """A code of a terminology: its value, the scheme that defines it, and its meaning in words."""

    value: str
    scheme: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class ClassCodes:
    """What a class is: the category of things it belongs to, what it is, and perhaps which of two sides."""

    category: Code
    type: Code
    modifier: Code | None = None


def read_codes(path: Path, names: Sequence[str]) -> dict[str, ClassCodes]:
    """The codes of some classes from a YAML file, which may hold others.

    Raises:
        CodesError: the file is missing or broken, or a class has no code, or one that DICOM can't hold.
    """
    try:
        plain = yaml.BaseLoader(path.read_text(encoding="utf-8")).get_single_data()  # values stay texts
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CodesError(f"{path} can't be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(plain, dict):
        raise CodesError(f"{path} must name classes, each with {EXAMPLE}")
    without = [name for name in names if name not in plain]
    if without:
        raise CodesError(
            f"{path} has no code for {name_some(without)}; it has {name_some(list(plain)) or 'none'}. Write "
            f"{without[0]}: and below it {EXAMPLE}"
        )
    long = [name for name in names if len(name) > LONGEST_LABEL or "\\" in name]
    if long:
        raise CodesError(f"DICOM can't hold the name {long[0]!r}: at most {LONGEST_LABEL} characters, no \\")
    return {name: _class_codes(plain[name], f"{path}: {name}") for name in names}


def _class_codes(plain: Any, where: str) -> ClassCodes:
    known = [field.name for field in dataclasses.fields(ClassCodes)]
    if not isinstance(plain, dict) or not {"category", "type"} <= set(plain) <= set(known):
        raise CodesError(
            f"{where} must have {', '.join(known[:2])} and perhaps {known[2]}, such as {EXAMPLE}"
        )
    return ClassCodes(**{name: _code(code, f"{where}: {name}") for name, code in plain.items()})


def _code(plain: Any, where: str) -> Code:
    texts = isinstance(plain, list) and len(plain) == 3 and all(isinstance(part, str) for part in plain)
    if not texts or any(
        not 0 < len(part) <= most or "\\" in part for part, most in zip(plain, LONGEST, strict=True)
    ):
        raise CodesError(
            f"{where} must be [VALUE, SCHEME, MEANING] of at most {', '.join(map(str, LONGEST))} characters, "
            f"such as [10200004, SCT, Liver], got {plain}"
        )
    return Code(*plain)
