"""SVG that a page can hold: valid, in the page's colours, nothing that leaves it."""

import re
from xml.etree import ElementTree

import pytest

from reference.report.figures import (
    SERIES,
    VARIABLES,
    Bar,
    Difference,
    Line,
    Part,
    bars,
    differences,
    lines,
    moving_mean,
    shares,
    steps,
)

BARS = [Bar("base", 60.0, 50.2, 69.1, (45.7, None)), Bar("<b>$x$ & y", 0.0, 0.0, 3.7), Bar("last", 53.0)]
LINES = [Line("Medium", [200, 400, 600], [70, 72, 75], [68, 70, 73], [72, 74, 77]), Line("Hard", [200, 600], [60, 61])]
PARTS = [Part("iteration 1", [0.1, 0.5, 0.3]), Part("iteration 2", [0.4])]
DIFFERENCES = [
    Difference("a heading"),
    Difference("a < b", [(-2.0, -3.0, -1.0), (1.0, 0.0, 2.0)]),
    Difference("b", [(0.0, -1.0, 1.0), (4.0, 3.0, 5.0)]),
]
DRAWN = {
    "bars": lambda: bars(BARS, x_label="% right", about="a & b", papers=("paper: A", "paper: B"), decimals=1),
    "shares": lambda: shares([("one", (50, 45, 5)), ("two", (100, 0, 0))], ("a", "b", "c"), x_label="%", about="s"),
    "lines": lambda: lines(LINES, x_label="tokens", y_label="pass@8", about="l"),
    "differences": lambda: differences(DIFFERENCES, ("accuracy", "format"), x_label="points", about="d"),
    "steps": lambda: steps(PARTS, y_label="reward", about="r", smoothed=5),
}


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(params=DRAWN, ids=str)
def svg(request):
    drawn = DRAWN[request.param]()
    assert drawn == DRAWN[request.param]()  # the same figure is the same text
    return drawn


def test_a_figure_is_one_svg_with_a_name_and_no_style_for_the_page(svg):
    root = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert root.get("role") == "img" and root.get("aria-label") and root.get("viewBox")
    assert root.get("width") is None and root.get("height") is None
    names = {element.tag.rsplit("}", 1)[-1] for element in root.iter()}
    assert names <= {"svg", "g", "path", "defs", "clipPath", "rect", "text", "use"}
    assert "DOCTYPE" not in svg and "<?xml" not in svg and "http" not in svg.replace("http://www.w3.org/1999/xlink", "")


def test_its_colours_are_the_pages(svg):
    assert not re.findall(r"#[0-9a-f]{3,6}\b(?!\))", re.sub(r'(href="|url\()#\w+', "", svg))
    assert set(re.findall(r"var\((--\w+)\)", svg)) <= set(VARIABLES.values())
    assert "var(--ink)" in svg and "var(--c1)" in svg


def test_ids_of_two_figures_do_not_get_in_each_others_way():
    drawn = [steps(PARTS, y_label="reward", about=name) for name in ("reward", "entropy")]
    found = [re.findall(r'\sid="([^"]+)"', svg) for svg in drawn]
    assert found[0] and not set(found[0]) & set(found[1])
    for svg, ids in zip(drawn, found, strict=True):
        assert len(set(ids)) == len(ids) and set(re.findall(r"url\(#(\w+)\)", svg)) <= set(ids)


def test_bars_show_their_values_their_labels_as_they_are_and_the_papers_names():
    found = texts(DRAWN["bars"]().replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert {"60.0", "0.0", "53.0", "base", "<b>$x$ & y", "paper: A", "paper: B", "% right"} <= set(found)


def test_a_bar_ends_where_its_value_is():
    """Between the ticks of the axis: the second bar is half of the first."""
    drawn = bars([Bar("a", 80.0), Bar("b", 40.0)], x_label="x", about="y")
    widths = []
    for path in re.findall(r'<path d="([^"]+)" clip-path="[^"]+" style="fill: var\(--c1\)[^"]*"', drawn):
        numbers = [float(pair.split()[0]) for pair in re.findall(r"[ML] ([-\d.]+ [-\d.]+)", path)]
        widths.append(max(numbers) - min(numbers))
    assert len(widths) == 2 and widths[1] == pytest.approx(widths[0] / 2)


def test_lines_are_told_apart_by_more_than_colour():
    drawn = DRAWN["lines"]()
    assert "stroke-dasharray" in drawn and {"Medium", "Hard"} <= set(re.findall(r">([A-Z]\w+)</text>", drawn))


def test_names_of_short_parts_do_not_overlap():
    drawn = steps([Part("medium", [1.0]), Part("bridge", [1.0] * 80)], y_label="loss", about="l")
    heights = dict(re.findall(r'y="([\d.]+)"[^>]*>(medium|bridge)<', drawn))
    assert len(heights) == 2, "both names at one height"


def test_the_smoothed_curve_is_a_mean_of_neighbours():
    assert moving_mean([0, 3, 6, 0, 1], 3) == pytest.approx([1.5, 3, 3, 7 / 3, 0.5])
    assert moving_mean([2.0], 5) == [2.0] and moving_mean([], 5) == []


def test_no_two_stand_ins_are_alike():
    assert len(VARIABLES) == 3 + len(SERIES) == len(set(VARIABLES.values()))
