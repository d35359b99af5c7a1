"""Pages made of templates: every value escaped, in the style of the project, with nothing from elsewhere."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def render(folder: Path, **context: Any) -> str:
    """The page that ``page.html.j2`` in a folder makes of what it is told, of the style (``css``) and of the
    ``version`` of this package.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(context, css=own("page.css"), version=_version())


def own(name: str) -> Markup:
    """A file of this folder, to stand in the page as it is."""
    return Markup((Path(__file__).parent / name).read_text("utf-8"))


def _version() -> str:
    try:
        return metadata.version("parts2whole")
    except metadata.PackageNotFoundError:
        return "development"
