"""The page that `gpu.py` writes: one part for every section, whole or failed."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class Section:
    """What one section has found; every line is printed as it comes.

    Attributes:
        name: of the section.
        title: what it measures.
        lines: Markdown.
        raw: figures, for the JSON file.
        wrong: what didn't hold.
        seconds: how long it took.
    """

    name: str
    title: str
    lines: list[str] = dataclasses.field(default_factory=list)
    raw: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def say(self, text: str) -> None:
        """A paragraph."""
        self._add("", text, "")

    def head(self, *names: str) -> None:
        """Begin a table."""
        self._add("", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}")

    def row(self, *cells: str) -> None:
        """A row of the table."""
        self._add(f"| {' | '.join(cells)} |")

    def fail(self, text: str) -> None:
        """Something didn't hold."""
        self.wrong.append(text)
        print(f"WRONG: {text}", flush=True)

    def _add(self, *lines: str) -> None:
        self.lines += lines
        print("\n".join(lines), flush=True)

    def page(self) -> str:
        """Its part of the page."""
        lines = [f"## {self.title}", *self.lines, ""]
        lines += [f"- **Failed**: {text}" for text in self.wrong]
        text = "\n".join(lines)
        while "\n\n\n" in text:
            text = text.replace("\n\n\n", "\n\n")
        return text.strip() + f"\n\n({self.name}: {self.seconds:.0f} s)\n"
