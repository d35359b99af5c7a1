"""How a missing extra is installed: from the package index, or from the clone that this runs from."""

from __future__ import annotations

from pathlib import Path


def install_hint(extra: str, *, root: Path | None = None) -> str:
    """The command that installs an extra where this package was installed from.

    Args:
        extra: its name in ``pyproject.toml``.
        root: the folder that would be the clone; default the one that this file lies in, if it does.
    """
    clone = Path(__file__).parents[2] if root is None else root
    if not (clone / "pyproject.toml").is_file():
        return f"pip install 'parts2whole[{extra}]'"
    return f"pip install -e '{'.' if clone == Path.cwd() else clone}[{extra}]'"
