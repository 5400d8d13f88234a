"""The report: one table for people, on the screen as in RESULTS.md, and one JSON object for programs."""

import json
from dataclasses import asdict

from figure import Figure, Figures

HEAD = ("what", "median", "min .. max", "unit", "must be")

PREFACE = """# Results

Written by `.venv/bin/python benchmarks/run.py --write`; [README.md](README.md) says what each figure is.
"""


def table(figures: Figures) -> str:
    """The figures that have samples, as an aligned Markdown table."""
    rows = [HEAD, *(_row(figure) for figure in figures.values() if figure.samples)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [_line(row, widths) for row in rows]
    # Numbers stand to the right.
    rule = [f"{'-' * (width - 1)}{':' if column in (1, 2) else '-'}" for column, width in enumerate(widths)]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def _row(figure: Figure) -> tuple[str, ...]:
    spread = f"{figure.text(min(figure.samples))} .. {figure.text(max(figure.samples))}"
    must = ""
    if figure.floor is not None:
        must = f"{figure.floor.kind} {figure.floor.value:,g}: {'yes' if figure.is_met else 'NO'}"
    return figure.title, figure.text(figure.median), spread, figure.unit, must


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        f"{cell:>{width}}" if column in (1, 2) else f"{cell:<{width}}"
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"


def markdown(machine: dict[str, str], figures: Figures) -> str:
    """The content of RESULTS.md."""
    facts = "\n".join(f"- {name}: {fact}" for name, fact in machine.items())
    return f"{PREFACE}\n{facts}\n\n{table(figures)}\n"


def as_json(machine: dict[str, str], figures: Figures) -> str:
    """The same for programs, with every sample."""
    return json.dumps(
        {
            "machine": machine,
            "figures": {
                name: asdict(figure) | {"median": figure.median, "met": figure.is_met}
                for name, figure in figures.items()
                if figure.samples
            },
        },
        indent=2,
        ensure_ascii=False,
    )
