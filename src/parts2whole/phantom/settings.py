"""What phantoms were made with, kept beside them: who asks for others must not get those that are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parts2whole.files import read_json, write_json


def keep_settings(file: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a file says; one that isn't there is written, and says those given."""
    if not file.exists():
        write_json(file, dict(settings))
    found: dict[str, Any] = read_json(file)
    return found
