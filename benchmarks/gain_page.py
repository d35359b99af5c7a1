"""Writes docs/results.md, what studies of gain show in short, and docs/results-runs.md, every run of theirs.

    python benchmarks/gain_page.py runs/gain-hippocampus --write docs/results.md

Every number comes from the runs in a study's folder; the prose is in ``study_notes/``, by the page's name and
the folder's.  Which runs belong to a finished study it says itself (``benchmark.json``).  Of one that was
stopped, or run in pieces, ``--recipes`` takes every finished run of an arm of its recipe.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gain_study import (
    Gain,
    contrast_table,
    draw_gain,
    endpoint_table,
    explain_table,
    lost_classes,
    read_gain,
    tell_contrast,
)
from study_page import NOTES, describe, every_run

from parts2whole.files import write_text
from parts2whole.report.contrast_figure import write_contrast_figure
from parts2whole.report.embedding_figure import write_embedding_figure
from parts2whole.report.endpoints import ENDPOINTS
from parts2whole.report.figures import FigureError
from parts2whole.report.results import result_rows

TOGETHER = "Do parts of one whole come together?"
LASTING = ("Undefined", "Arms differ", "Between seeds")
"""How notes of a study's table begin that hold of its runs, however they are tabulated."""
PICTURES = (
    (
        "contrast",
        write_contrast_figure,
        "Loss and InfoNCE (temperature 0.1) of fixed parts of held-out wholes, from before the first step. "
        "Two falling curves correlate whatever they are, which is why the correlation of their changes "
        "between validations stands beside it.",
    ),
    (
        "embedding",
        write_embedding_figure,
        "t-SNE of parts of held-out wholes before and after pre-training, a colour a whole; the share says "
        "how often the nearest other part, in the embedding itself, is of the same whole.",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+", help="folders of studies, called like their recipes")
    parser.add_argument("--write", type=Path, required=True, metavar="PAGE")
    parser.add_argument("--recipes", action="store_true", help="every finished run of the arms of its recipe")
    chosen = parser.parse_args()
    studies = [read_gain(folder, by_recipe=chosen.recipes) for folder in chosen.studies]
    short, long = chosen.write, chosen.write.with_name(f"{chosen.write.stem}-runs.md")
    folders = " ".join(f"runs/{study.key}" for study in studies)
    written = (
        f"Written by `python benchmarks/gain_page.py {folders}{' --recipes' * chosen.recipes} --write "
        f"docs/{short.name}` on {datetime.now(UTC):%Y-%m-%d}."
    )
    drawn = {study.key: draw(study, short.parent / "figures") for study in studies}
    pages = {
        short: short_page(studies, drawn, short.stem, long.name),
        long: long_page(studies, drawn, short.name),
    }
    for path, lines in pages.items():
        write_text(path, "\n".join(lines).rstrip() + f"\n\n{written}\n")


def draw(study: Gain, folder: Path) -> list[str]:
    """Draw a study's pictures into ``folder``; lines that show those of its pre-trainings."""
    draw_gain(study, folder / f"{study.key}-gain.png")
    lines: list[str] = []
    for name, write, words in PICTURES:
        picture = folder / f"{study.key}-{name}.png"
        with contextlib.suppress(FigureError):  # nothing recorded to draw
            write(picture, study.pretrainings)
            lines += [f"![{words.partition(',')[0]}](figures/{picture.name})", "", words, ""]
    return lines


def short_page(studies: Sequence[Gain], drawn: dict[str, list[str]], name: str, long: str) -> list[str]:
    """What a stranger wants to know: an answer a study, with a table and a picture behind it."""
    lines = [*prose(name), "| | what is shown |", "|---|---|"]
    lines += [f"| [{study.name}]({study.link}) | {study.headline} |" for study in studies]
    of_gain = [study for study in studies if study.methods and study.reference.lower() == "scratch"]
    if of_gain:
        link = TOGETHER.lower().replace(" ", "-").rstrip("?")
        lines.append(f"| [{TOGETHER}](#{link}) | {tell_contrast(of_gain)} |")
    for study in studies:
        quiet = [
            ENDPOINTS[e.name]
            for e, told in zip(study.pairs[study.focus], study.told, strict=True)
            if not told
        ]
        said = [" ".join(one).rstrip() for one in study.said]
        lines += ["", f"## {study.name}", "", *prose(f"{study.key}-short"), f"- {said[0]}"]
        lines += [f"- {text}" for text, told in zip(said[1:], study.told[1:], strict=True) if told]
        lines += [f"- Nothing is shown of: {', '.join(quiet)}."] if quiet and any(study.told) else []
        lines += [
            *(f"- {text}" for text in study.ranking),
            "",
            *endpoint_table(study, 0),
            "",
            explain_table(study, 0),
        ]
        lines += ["", f"![Differences to {study.reference}](figures/{study.key}-gain.png)", ""]
        lines += [
            f"A dot a seed, arm minus *{study.reference}*; mean with 95 % interval, filled if told from 0."
        ]
        lines += ["", f"[Every run, the other endpoints, and how settings were chosen]({long}{study.link})"]
    if of_gain:
        most = max(of_gain, key=lambda study: study.methods)
        lines += [
            "",
            f"## {TOGETHER}",
            "",
            *contrast_table(of_gain),
            "",
            f"{most.name}:",
            "",
            *drawn[most.key],
        ]
    return lines


def long_page(studies: Sequence[Gain], drawn: dict[str, list[str]], short: str) -> list[str]:
    """All that stands behind the short page."""
    lines = ["# Every run behind the results", "", f"What they amount to is [told in short]({short})."]
    for study in studies:
        endpoints = study.pairs[study.focus]
        lines += ["", f"## {study.name}", "", describe(study.folder, study.pretrainings, study.done), ""]
        lines += [f"- {text}" for text in (*(" ".join(one).rstrip() for one in study.said), *study.ranking)]
        for place, endpoint in enumerate(endpoints):
            table = [f"### {capital(ENDPOINTS[endpoint.name])}", "", *endpoint_table(study, place)]
            lines += ["", *table, "", explain_table(study, place), *endpoint.notes]
        notes = study.listing.tabulate(study.done).notes
        lines += ["", *(f"- {note}" for note in notes if note.startswith(LASTING))]
        lines += [f"- {lost_classes(study.done)}", ""]
        lines += prose(study.key)
        lines += (
            ["### Pre-training", "", *contrast_table([study]), "", *drawn[study.key]]
            if drawn[study.key]
            else []
        )
        lines += ["### Every seed", "", *every_run(result_rows(study.done), study.listing.arms)]
    return lines


def prose(name: str) -> list[str]:
    """What was written by hand, where there is something."""
    path = NOTES / f"{name}.md"
    return [path.read_text().strip(), ""] if path.exists() else []


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


if __name__ == "__main__":
    main()
