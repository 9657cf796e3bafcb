"""The experiments on one page: claims with their verdicts, figures, tables; and the figures as files of their own."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from textwrap import fill

from reference.engines.artifacts import write_whole
from reference.experiments.effects import METRICS, TIMES, Effect, shown
from reference.experiments.readings import READINGS
from reference.experiments.results import SEED, ClaimLine, Line, folder_of
from reference.experiments.tables import NOT_PRINTED, grid, paper_numbers
from reference.experiments.variants import ALL_ZERO, AVERAGE, NOT_IN_PAPER, PASS, Experiment
from reference.paper.curricula import CURRICULA
from reference.report import figures, markup
from reference.report.markup import text
from reference.report.panels import Panel
from reference.report.tables import Table

LABEL_WIDTH = 26  # letters of a bar's label in a line
PAPERS = ("Qwen2.5-0.5B", "Llama3.2-1B")
COLOURS = ("ink", "muted", "rule", "c1", "c2", "c3", "c4", "c5")  # page.css's, that a figure draws with


def write_page(
    out: Path,
    found: Mapping[str, Experiment],
    lines: Sequence[Line],
    verdicts: Sequence[ClaimLine],
    effects: Sequence[Effect],
    seeds: Sequence[int],
) -> Path:
    """`report.html` in the experiments' folder, and `results/EXPERIMENT.svg`; the page's path."""
    by_name = {name: [line for line in lines if line.experiment == name] for name in found}
    panels = {name: panel(name, found[name], by_name[name]) for name in found if name != "readings"}
    if "motivation" in panels:
        panels["motivation-average"] = over_budgets(found["motivation"], by_name["motivation"])
    if effects:
        panels["readings"] = readings_panel(effects)
    if "iterations" in panels:
        panels["rewards"] = rewards(out / f"{SEED}{seeds[0]}", seeds[0])
    for name, one in panels.items():
        write_whole(out / "results" / f"{name}.svg", standalone(one.svg))
    template = files("reference.report").joinpath("experiments.html").read_text(encoding="utf-8")
    links = ", ".join(f'<a href="{SEED}{seed}/report.html">seed {seed}</a>' for seed in seeds)
    page = Template(template).substitute(
        name=text(out.name),
        style=_style(),
        lead=text(f"{_counted(len(found))}, seeds {', '.join(map(str, seeds))}{_tally(verdicts)}."),
        beside=text(
            "An interval covers other test problems and other seeds; a claim is a paired difference, judged by a rule "
            "that is older than the results. The paper's numbers are of Qwen2.5-0.5B and Llama3.2-1B on its benchmarks."
        ),
        claims=markup.table(_claims(verdicts)) if verdicts else "<p>No claim of the paper is about these.</p>",
        figures="\n".join(map(markup.figure, panels.values())),
        tables="\n".join(markup.table(_table(name, found[name], by_name[name])) for name in found),
        seeds=links,
    )
    path = out / "report.html"
    write_whole(path, page)
    return path


def _style() -> str:
    return files("reference.report").joinpath("page.css").read_text(encoding="utf-8")


def _counted(count: int) -> str:
    return f"{count} experiment{'s' if count > 1 else ''}"


def _tally(verdicts: Sequence[ClaimLine]) -> str:
    if not verdicts:
        return ""
    counts = {name: sum(line.verdict == name for line in verdicts) for name in ("seen", "not seen", "undecided")}
    return f": of {len(verdicts)} claims {', '.join(f'{count} {name}' for name, count in counts.items())}"


def _claims(verdicts: Sequence[ClaimLine]) -> Table:
    rows = []
    for line in verdicts:
        difference = f"{line.difference:+.1f} ({line.low:+.1f} to {line.high:+.1f})"
        rows.append((line.verdict, difference, line.claim, f"{line.source}, {line.metric}"))
    head = ("verdict", "points, 95% interval", "claim", "where, by what")
    note = "Seen: the interval is above 0. Not seen: it ends below 1."
    return Table("Claims", head, rows, "results/claims.csv", note, num_labels=4)


def _table(name: str, experiment: Experiment, lines: Sequence[Line]) -> Table:
    head, *rows = grid(name, lines)
    note = f"{_where(experiment)} Percent with a 95% interval; seeds {lines[0].seeds}."
    papers = [("the paper", 1)] if name != "motivation" else []
    return Table(experiment.title, head, rows, f"results/{name}.csv", note, papers)


def panel(name: str, experiment: Experiment, lines: Sequence[Line]) -> Panel:
    """The figure of an experiment: pass@8 by budget, or a bar for each row."""
    if name == "motivation":
        svg = by_budget(lines)
        shows = "pass@8 after SFT at equal budgets of supervised tokens, with 95% bands."
        return Panel(experiment.title, svg, shows, f"results/{name}.csv", _where(experiment))
    metric = ALL_ZERO if name == "iterations" and any(line.metric == ALL_ZERO for line in lines) else AVERAGE
    rows = [_bar(name, line, metric) for line in lines if line.metric == (PASS if _after_sft(line) else metric)]
    papers = PAPERS if any(row.papers for row in rows) else ()
    what = "pass@8 after SFT, average accuracy after two iterations" if any(map(_after_sft, lines)) else metric
    svg = figures.bars(rows, x_label="%", about=f"{experiment.title}: {what}", papers=papers)
    shows = _sentence(f"{what}, with 95% intervals")
    return Panel(experiment.title, svg, shows, f"results/{name}.csv", _where(experiment))


def over_budgets(experiment: Experiment, lines: Sequence[Line]) -> Panel:
    """The right halves of Figures 6 and 7: each curriculum's mean over the budgets, and the base model."""
    labels = ["base", *(label for label, _ in experiment.means)]
    rows = [_bar("motivation", line, PASS) for line in lines if line.label in labels]
    about = "pass@8 of five curricula, the mean over their budgets"
    svg = figures.bars(rows, x_label="% pass@8", about=about, decimals=1)
    shows = _sentence(f"{about}, and of the base model, with 95% intervals")
    return Panel("Curricula, averaged over the budgets", svg, shows, "results/motivation.csv", "Figures 6, 7, right.")


def readings_panel(effects: Sequence[Effect]) -> Panel:
    """What each reading moves, after the initial SFT and after two iterations."""
    rows = []
    for when in dict.fromkeys(effect.when for effect in effects):
        rows.append(figures.Difference(when))
        for reading in shown(effects, when):
            found = {effect.metric: effect for effect in effects if (effect.when, effect.reading) == (when, reading)}
            values = [(found[name].difference, found[name].low, found[name].high) for name in METRICS]
            what = READINGS.get(reading, f"{reading.replace(TIMES, ' and ')}: interaction")
            rows.append(figures.Difference(fill(what, LABEL_WIDTH), values))
    about = "what each reading of the paper moves, in percentage points"
    svg = figures.differences(rows, METRICS, x_label="percentage points", about=about)
    shows = (
        "Main effects of the other reading against the default, over all combinations of the rest, and the interaction "
        "with the largest difference; with 95% intervals."
    )
    return Panel("Readings of the paper", svg, shows, "results/readings-effects.csv", "Not in the paper.")


def rewards(seed_folder: Path, seed: int) -> Panel:
    """Figure 9: the reward of each rollout batch of four iterations, of one seed."""
    parts = []
    for t in range(1, 5):
        folder = folder_of(seed_folder, "four-iterations", f"iter{t}/3_grpo")
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        parts.append(figures.Part(f"iteration {t}", [row["reward"] for row in rows]))
    about = f"mean reward of each rollout batch in four iterations, seed {seed}"
    svg = figures.steps(parts, y_label="mean reward", about=about, smoothed=5)
    shows = _sentence(f"{about}; light the batches, dark their centred mean over 5")
    source = f"{SEED}{seed}/variants/four-iterations/iter*/3_grpo/metrics.jsonl"
    return Panel("Reward over four iterations", svg, shows, source, "Figure 9 of the paper.")


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _where(experiment: Experiment) -> str:
    return "Not in the paper." if experiment.source == NOT_IN_PAPER else f"The paper's {experiment.source}."


def _after_sft(line: Line) -> bool:
    return line.label.endswith(", after SFT")


def _bar(name: str, line: Line, metric: str) -> figures.Bar:
    printed = paper_numbers(name, line.label).removesuffix(" (pass@8)").split(" / ") if metric == AVERAGE else []
    papers = tuple(None if number == NOT_PRINTED else float(number) for number in printed)
    return figures.Bar(fill(line.label, LABEL_WIDTH), line.percent, line.low, line.high, papers if any(papers) else ())


def by_budget(lines: Sequence[Line]) -> str:
    """pass@8 of each curriculum over its budgets."""
    curves = []
    for curriculum in CURRICULA:
        of_budgets = [one for one in lines if one.label.startswith(f"{curriculum} ") and one.label.split()[1].isdigit()]
        own = sorted((int(one.label.split()[1]), one) for one in of_budgets)
        x, found = [budget for budget, _ in own], [one for _, one in own]
        curves.append(
            figures.Line(
                curriculum.replace("_", " -> "),
                x,
                [one.percent for one in found],
                [one.low for one in found],
                [one.high for one in found],
            )
        )
    about = "pass@8 of five curricula over the budget of supervised tokens"
    return figures.lines(curves, x_label="supervised tokens", y_label="% pass@8", about=about)


def standalone(svg: str) -> str:
    """A page's figure as a file: with the colours that the page would give it."""
    blocks = re.findall(r":root[^{]*{([^}]*)}", _style())[:2]
    pages = [dict(re.findall(r"--(\w+): (#[0-9a-f]+)", block)) for block in blocks]
    light, dark = ("".join(f"--{name}:{page[name]};" for name in COLOURS) for page in pages)
    style = (
        f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}text{{font-family:sans-serif}}</style>"
    )
    opening, rest = svg.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'
