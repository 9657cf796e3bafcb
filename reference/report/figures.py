"""Figures as SVG text, drawn by matplotlib, in one style for light and dark pages.

Each function draws plain data and gives one panel that can be read 350 pixels wide, so that several of them stand
beside one another on a desk and below one another on a phone. Colours are CSS variables of the page (`--ink`,
`--muted`, `--rule`, `--c1` to `--c5`); text is text. Colours follow Okabe and Ito, and no two series differ by colour
alone.
"""

import io
import logging
import re
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

# Its font cache is built once on a machine, slowly, and announced on stderr, where a run says nothing.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

import matplotlib  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

# Stand-ins that matplotlib writes and `_svg` replaces: no two are alike, and nothing else in a figure has them.
INK, MUTED, RULE = "#1a1a11", "#77777a", "#dddddb"
SERIES = ("#0072b1", "#d55e01", "#009e71", "#cc79a1", "#8a6d01")
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {c: f"--c{i}" for i, c in enumerate(SERIES, start=1)}
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("D", "o")
POINTS = ("o", "s", "^", "D", "v")
TINT = 0.5  # of a filled area: what stands on it stays readable on either page
NAME_ROOM = 50  # letters that fit above an axis
WIDTH = 4.6  # inches; 331 units of the SVG
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may have dollars in it
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


class Bar(NamedTuple):
    """One bar; `low` and `high` are the ends of its 95% interval; `papers`: what each of the paper's models has."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    papers: Sequence[float | None] = ()


class Difference(NamedTuple):
    """A row of differences: (value, low, high) for each series; a row without values is a heading."""

    label: str
    values: Sequence[tuple[float, float, float]] = ()


class Line(NamedTuple):
    """One line over x with its 95% band, or without one."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Part(NamedTuple):
    """A stretch of steps between two marks: an iteration, a phase."""

    name: str
    values: Sequence[float]


def bars(rows: Sequence[Bar], *, x_label: str, about: str, papers: Sequence[str] = (), decimals: int = 0) -> str:
    """Horizontal bars with their values and 95% intervals; a marker for each of the `papers`, named below."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _panel(0.36 * len(rows) + (1.0 if papers else 0.7))
        places = range(len(rows))
        axes.barh(places, [row.value for row in rows], height=0.62, color=SERIES[0], alpha=TINT)
        for place, row in zip(places, rows, strict=True):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=INK, linewidth=1.2, solid_capstyle="butt")
        for index, (name, marker) in enumerate(zip(papers, MARKERS, strict=False)):
            known = [(row.papers[index], place) for place, row in zip(places, rows, strict=True) if row.papers]
            points = [(value, place) for value, place in known if value is not None]
            values, at = [value for value, _ in points], [place for _, place in points]
            axes.plot(values, at, marker, color=INK, markerfacecolor="none", markersize=6, label=name)
        axes.set_yticks(list(places), [row.label for row in rows])
        axes.invert_yaxis()
        reach = max(max(row.value, row.high or 0, *(p or 0 for p in row.papers)) for row in rows) or 1.0
        axes.set_xlim(0, 1.18 * reach)
        for place, row in zip(places, rows, strict=True):
            axes.text(1.18 * reach, place, f"{row.value:.{decimals}f}", ha="right", va="center", color=INK)
        axes.grid(axis="x")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(x_label)
        _legend(figure, axes, bool(papers))
        return _svg(figure, about)


def differences(rows: Sequence[Difference], names: Sequence[str], *, x_label: str, about: str) -> str:
    """Points with their 95% intervals beside a line at 0: in each row one for each of the series `names`."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _panel(0.5 * len(rows) + 1.1)
        axes.axvline(0, color=MUTED, linewidth=1)
        for index, (name, colour, marker) in enumerate(
            zip(names, SERIES[: len(names)], POINTS[: len(names)], strict=True)
        ):
            offset = 0.24 * (index - (len(names) - 1) / 2)
            known = [(place + offset, *row.values[index]) for place, row in enumerate(rows) if row.values]
            for place, _, low, high in known:
                axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
            places, values = [place for place, *_ in known], [value for _, value, *_ in known]
            axes.plot(values, places, marker, color=colour, markersize=5, label=name)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("normal" if row.values else "bold")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="x")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(x_label)
        _legend(figure, axes, True)
        return _svg(figure, about)


def shares(rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], *, x_label: str, about: str) -> str:
    """Horizontal bars that sum to 100, cut into the parts `names`; a part that has room has its number in it."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _panel(0.42 * len(rows) + 1.05)
        for place, (_, parts) in enumerate(rows):
            left = 0.0
            for index, part in enumerate(parts):
                axes.barh(place, part, left=left, height=0.62, color=SERIES[index], alpha=TINT)
                axes.text(left + part / 2, place, f"{part:.0f}" if part >= 5 else "", ha="center", va="center")
                left += part
        handles = [Patch(color=colour, alpha=TINT, label=name) for colour, name in zip(SERIES, names, strict=False)]
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(x_label)
        figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1.2)
        return _svg(figure, about)


def lines(rows: Sequence[Line], *, x_label: str, y_label: str, about: str) -> str:
    """Lines over a numeric x axis, each with its 95% band, told apart by colour and dashes."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _panel(3.0)
        for row, colour, dashes in zip(rows, SERIES * 2, LINE_STYLES * 2, strict=False):
            if row.low is not None and row.high is not None:
                axes.fill_between(row.x, row.low, row.high, color=colour, alpha=0.15, linewidth=0)
            marker = "o" if len(row.x) <= 12 else None
            axes.plot(row.x, row.y, color=colour, linestyle=dashes, marker=marker, markersize=4, label=row.name)
        axes.grid(axis="y")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _legend(figure, axes, len(rows) > 1)
        return _svg(figure, about)


def steps(parts: Sequence[Part], *, y_label: str, about: str, smoothed: int = 0, tall: bool = False) -> str:
    """Values step after step, with a mark where a part begins.

    With `smoothed`, the values are light and their centred mean over so many steps is dark; it crosses no mark.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _panel(2.6 if tall else 2.1)
        begin, end_of_name, level = 1, 0.0, 0
        total = sum(len(part.values) for part in parts)
        for index, part in enumerate(parts):
            x = range(begin, begin + len(part.values))
            marker = "o" if len(part.values) <= 3 else None
            if smoothed:
                axes.plot(x, part.values, color=SERIES[0], alpha=0.35, linewidth=1.2)
                axes.plot(x, moving_mean(part.values, smoothed), color=SERIES[0], linewidth=2.2, marker=marker)
            else:
                axes.plot(x, part.values, color=SERIES[0], linewidth=1.6, marker=marker, markersize=4)
            if index:
                axes.axvline(begin - 0.5, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
            level = 1 - level if begin < end_of_name else 0  # a name that has no room stands above its neighbour
            height = 1.03 + 0.13 * level
            axes.text(begin, height, part.name, transform=axes.get_xaxis_transform(), color=MUTED, fontsize=9)
            end_of_name = begin + (len(part.name) + 1) * total / NAME_ROOM
            begin += len(part.values)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_xlabel("step")
        axes.set_ylabel(y_label)
        return _svg(figure, about)


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """The centred mean over `window` values, over fewer at the ends."""
    half = window // 2
    near = [values[max(0, at - half) : at + half + 1] for at in range(len(values))]
    return [sum(part) / len(part) for part in near]


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _legend(figure: Figure, axes: Axes, wanted: bool) -> None:
    handles, names = axes.get_legend_handles_labels()
    if wanted and handles:
        figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)), handlelength=1.6)


def _svg(figure: Figure, about: str) -> str:
    """The figure as an element of a page: no prolog, no ids that another figure has, no style that leaves it."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": about}):  # its ids: the same each time, and no other figure's
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    rest = f'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(about)}" stroke-linejoin="round"'
    return re.sub(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', lambda found: f"<svg {found[1]} {rest}>", text, count=1)
