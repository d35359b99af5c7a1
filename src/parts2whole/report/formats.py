"""A results table written for terminals, Markdown, LaTeX, CSV and HTML, its notes under each of them."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from html import escape
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from parts2whole.report.tables import BEST_OTHER, Cell, Difference, Row, Table, describe_margin, metric_title

T = TypeVar("T")
CSV_COLUMNS = (
    *(
        "task",
        "metric",
        "fraction",
        "labelled_min",
        "labelled_max",
        "steps",
        "arm",
        "n",
        "mean",
        "sd",
        "best",
    ),
    *("equivalent", "p_vs_best", "focus", "focus_minus_arm", "n_compared", "p_focus", "test", "alternative"),
    *("alpha", "seeds"),
)
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "α": r"$\alpha$",
    "≈": r"$\approx$",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
} | {sign: "\\" + sign for sign in "&%$#_{}"}


def format_number(value: float, *, percent: bool) -> str:
    """A mean, deviation or difference: percentages with two decimals, others with three digits."""
    return f"{100 * value:.2f}" if percent else f"{value:#.3g}".rstrip(".")


def format_share(share: float) -> str:
    """``38 %``; nearly nothing and nearly all with a digit, ``0.4 %`` and ``99.6 %``, as none isn't few."""
    if 0.99 < share < 1:
        return f"{100 - float(f'{100 * (1 - share):.1g}'):g} %"
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def format_cell(cell: Cell, row: Row, *, with_n: bool) -> str:
    """``81.23 ± 0.45``, with n where it differs between cells."""
    text = format_number(cell.mean, percent=row.percent)
    if cell.sd is not None:
        text += f" ± {format_number(cell.sd, percent=row.percent)}"
    return f"{text} (n={cell.n})" if with_n else text


def format_p(p: float | None) -> str:
    """A p-value; ``–`` where there was nothing to test."""
    if p is None:
        return "–"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def format_difference(difference: Difference | None, row: Row) -> str:
    """``+2.31 ± 0.80``: the difference, and the deviation of the paired differences where there are pairs."""
    if difference is None:
        return "–"
    sign = "+" if difference.difference > 0 else "−" if difference.difference < 0 else ""
    text = sign + format_number(abs(difference.difference), percent=row.percent)
    return text if difference.sd is None else f"{text} ± {format_number(difference.sd, percent=row.percent)}"


def metric_label(row: Row) -> str:
    """``Dice mean, %``."""
    return metric_title(row.metric) + (", %" if row.percent else "")


def to_text(table: Table, *, width: int | None = None) -> str:
    """The table as plain text, with the best marked by ``*``.

    Args:
        table: the table.
        width: columns, default those of the terminal.  Where a line of all arms is wider, every arm has a
            line of its own; names and numbers are never cut.
    """
    width = shutil.get_terminal_size().columns if width is None else width
    made = _flat_text(table)
    measure = Console(file=io.StringIO(), width=10_000, color_system=None).measure
    if measure(made).minimum > width:
        made = _upright_text(table)
    console = Console(file=io.StringIO(), width=max(width, measure(made).minimum), color_system=None)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _flat_text(table: Table) -> RichTable:
    """A line a row of the table, a column an arm."""
    made, first = _frame(table)
    for place, name in enumerate(_headings(table)[first:], start=first):
        made.add_column(Text(name), justify="right" if place > 2 else "left", no_wrap=place > 2)
    for line in _lines(table, _style_text, Text):
        made.add_row(*line[first:])
    return made


def _upright_text(table: Table) -> RichTable:
    """A block a row of the table, in it a line an arm and a line a comparison."""
    made, first = _frame(table)
    made.add_column(Text(", ".join(_headings(table)[first:3])))
    for heading in ("", "p"):
        made.add_column(Text(heading), justify="right", no_wrap=True)
    lines = _lines(table, _style_text, Text)
    for row, line in zip(table.rows, lines, strict=True):
        if made.rows:
            made.add_row()
        made.add_row(Text(", ").join(line[first:3]))
        for arm, score in zip(table.arms, line[3:], strict=False):
            made.add_row(Text(f"  {arm}"), score)
        for rival, difference in row.differences.items():
            named = ", the best other" if rival == BEST_OTHER else ""
            made.add_row(
                Text(f"  {table.focus} − {difference.against}{named}"),
                Text(f"{format_difference(difference, row)}  "),  # as wide as a score's mark
                Text(format_p(difference.p)),
            )
    return made


def _frame(table: Table) -> tuple[RichTable, int]:
    """A table without columns, and the first heading that is not told in its title."""
    common, first = _common(table)
    made = RichTable(
        title=Text(common, style="bold") if common else None, title_justify="left", box=SIMPLE_HEAD
    )
    notes = [note.replace("Bold:", "Marked *:") for note in table.notes]
    made.caption, made.caption_justify = Text("\n".join(notes), style="dim"), "left"
    return made, first


def _style_text(text: str, cell: Cell) -> Text:
    return Text(f"{text} *" if cell.best else f"{text} ≈" if cell.equivalent else f"{text}  ")


def to_markdown(table: Table) -> str:
    """A GitHub table; the best is bold, equivalents carry ``≈``."""

    def clean(text: str) -> str:
        for sign in "\\|*_<>`[]":
            text = text.replace(sign, "\\" + sign)
        return " ".join(text.split())

    def style(text: str, cell: Cell) -> str:
        return f"**{text}**" if cell.best else f"{text} ≈" if cell.equivalent else text

    headings = [clean(name) for name in _headings(table)]
    lines = [headings, ["---"] * 3 + ["---:"] * (len(headings) - 3), *_lines(table, style, clean)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{body}\n\n" + "\n".join(f"- {clean(note)}" for note in table.notes) + "\n"


def to_latex(table: Table) -> str:
    """A LaTeX tabular that needs the packages booktabs and xcolor."""

    def clean(text: str) -> str:
        return "".join(LATEX.get(sign, sign) for sign in text)

    def style(text: str, cell: Cell) -> str:
        text = clean(text)
        return (
            rf"\textbf{{{text}}}"
            if cell.best
            else rf"\textcolor{{gray}}{{{text}}}"
            if cell.equivalent
            else text
        )

    headings = [clean(name) for name in _headings(table)]
    notes = " ".join(table.notes).replace("Marked ≈", "Grey")
    lines = [
        "% needs \\usepackage{booktabs} and \\usepackage{xcolor}",
        rf"\begin{{tabular}}{{lll{'r' * (len(headings) - 3)}}}",
        r"\toprule",
        " & ".join(headings) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in _lines(table, style, clean)),
        r"\bottomrule",
        r"\end{tabular}",
        "",
        rf"\par\smallskip{{\footnotesize {clean(notes)}}}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One line per task, label fraction and arm, unrounded; the test is in its own columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in table.rows:
        against = {difference.against: difference for difference in row.differences.values()}
        for arm, cell in row.cells.items():
            versus = against.get(arm)
            difference = (versus.difference, versus.n, versus.p) if versus else (None,) * 3
            marks = (int(cell.best), int(cell.equivalent), cell.p_best)
            line = [
                row.task,
                row.metric,
                row.fraction,
                *row.labelled,
                row.steps,
                arm,
                cell.n,
                cell.mean,
                cell.sd,
                *marks,
            ]
            how = (table.test, table.alternative, table.alpha, " ".join(map(str, cell.values)))
            writer.writerow([*line, table.focus, *difference, *how])
    return out.getvalue()


def _against_best(cell: Cell, table: Table) -> str:
    """What the mark of a cell stands for, or that it has none."""
    p = "" if cell.p_best is None else f": p = {format_p(cell.p_best)}".replace("= <", "<")
    if table.margin is not None:
        how = "" if cell.equivalent else "not shown to be "
        within = describe_margin(table.margin, [row.percent for row in table.rows])
        return f"{how}equivalent to the best within {within}"
    return f"not told from the best{p}" if cell.equivalent else f"worse than the best{p}"


def to_html(table: Table) -> str:
    """A fragment of HTML; classes ``best`` and ``equivalent`` carry the marks, titles the tests."""

    def style(text: str, cell: Cell) -> str:
        if cell.best:
            return f"<strong class='best'>{escape(text)}</strong>"
        told = f" title='{escape(_against_best(cell, table))}'"
        if cell.equivalent:
            return f"<span class='equivalent'{told}>{escape(text)}&nbsp;≈</span>"
        return f"<span{told if cell.p_best is not None else ''}>{escape(text)}</span>"

    common, first = _common(table)
    headings = "".join(
        f"<th scope='col'{_number(place)}>{escape(name)}</th>"
        for place, name in enumerate(_headings(table)[first:], start=first)
    )
    body = []
    for row, line in zip(table.rows, _lines(table, style, escape), strict=True):
        title = escape("; ".join(f"{c.against}: {c.description}" for c in row.differences.values()))
        kept = [text.replace(" ± ", "&nbsp;±&nbsp;") for text in line[first:]]
        cells = [f"<td{_number(place)}>{text}</td>" for place, text in enumerate(kept, start=first)]
        body.append(f"<tr title='{title}'>{''.join(cells)}</tr>")
    caption = f"<caption>{escape(common)}</caption>" if common else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f"<div class='scroll'><table class='results'>{caption}<thead><tr>{headings}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div><ul class='notes'>{notes}</ul>"
    )


def _number(place: int) -> str:
    return " class='number'" if place > 2 else ""


def _common(table: Table) -> tuple[str, int]:
    """Task and metric, where all rows share them, and the number of columns that need not be shown then."""
    found = {f"{row.task}: {metric_label(row)}" for row in table.rows}
    return (found.pop(), 2) if len(found) == 1 else ("", 0)


def _headings(table: Table) -> list[str]:
    compared = [name for rival in table.rivals for name in (f"{table.focus} − {rival}", "p")]
    return ["Task", "Metric", "Labels", *table.arms, *compared]


def _lines(table: Table, style: Callable[[str, Cell], T], plain: Callable[[str], T]) -> list[Sequence[T]]:
    """Every row's cells: ``style`` writes results, ``plain`` anything else."""
    with_n = len({cell.n for row in table.rows for cell in row.cells.values()}) > 1
    lines: list[Sequence[T]] = []
    for row in table.rows:
        line = [plain(row.task), plain(metric_label(row)), plain(row.labels)]
        for arm in table.arms:
            cell = row.cells.get(arm)
            line.append(style(format_cell(cell, row, with_n=with_n), cell) if cell else plain("–"))
        for rival in table.rivals:
            difference = row.differences.get(rival)
            named = f" ({difference.against})" if difference and rival == BEST_OTHER else ""
            line.append(plain(format_difference(difference, row) + named))
            line.append(plain(format_p(difference.p if difference else None)))
        lines.append(line)
    return lines
