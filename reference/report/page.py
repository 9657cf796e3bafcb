"""report.html: a run on one page that loads nothing from anywhere.

Whatever a model, a teacher or a user wrote is text here: escaped in the page, and in the inspector's data JSON that the
page's script puts into text nodes. A content security policy lets no other script run and nothing be fetched.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from reference.engines.artifacts import write_whole
from reference.report.inspector import Inspector
from reference.report.panels import Panel, panels
from reference.report.settings import Setting, differences
from reference.report.story import Run, Stage, read_run
from reference.report.tables import Table, tables

FILE_NAME = "report.html"
OFFLINE = "offline"
SHOWN_REJECTIONS = 200
# Algorithm 1's line for each operation.
LINES = {"drop": 13, "compress": 15, "keep": 19, "expand": 21, "localize": 26}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def write_report(run_path: Path) -> Path:
    """Write `report.html` into a run's folder from the files that are there, over an older one; the file's path.

    Raises:
        ValueError: the folder is no run's, or one of its files is damaged.
    """
    path = run_path / FILE_NAME
    write_whole(path, page(read_run(run_path)))
    return path


def page(run: Run) -> str:
    """The whole page as text."""
    parts = files("reference.report")
    script = parts.joinpath("page.js").read_text(encoding="utf-8")
    inspector = Inspector(run)
    return Template(parts.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        policy=_policy(script),
        style=parts.joinpath("page.css").read_text(encoding="utf-8"),
        script=script,
        title=f"{text(run.name)} · run report",
        name=text(run.name),
        lead=lead(run),
        unfinished=unfinished(run),
        numbers=numbers(run),
        beside=beside(run),
        story=story(run.stages),
        rejected=rejections(run.stages),
        settings=settings(differences(run.settings)),
        environment=text(" · ".join(f"{name} {value}" for name, value in run.environment.items())),
        tables="\n".join(table(one) for one in tables(run)) or missing("No stage that a table is made of is done yet."),
        figures="\n".join(figure(one) for one in panels(run)) or missing("No stage that is drawn is done yet."),
        capped=capped(inspector, len(run.problems)),
        meta=embedded({"thresholds": inspector.thresholds(), "lines": LINES, "iterations": len(run.iterations)}),
        index=embedded(inspector.index()),
        details="\n".join(map(embedded, inspector.details())),  # a line each: the page reads the one it shows
    )


def text(value: object) -> str:
    """Any text as HTML that shows it: signs that no page can hold become the replacement character."""
    whole = str(value).encode("utf-8", "replace").decode("utf-8")
    return escape(_CONTROL.sub("\ufffd", whole))


def embedded(value: object) -> str:
    """JSON for a script element: ASCII, so that no sign is lost, and with no `<`, so that nothing can end it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _policy(script: str) -> str:
    """Nothing may be loaded, and no script may run but the page's own, which is known by its hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    allowed = f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def missing(sentence: str) -> str:
    """What stands where nothing can be shown."""
    return f'<p class="callout">{text(sentence)}</p>'


def lead(run: Run) -> str:
    """The run in a sentence or two."""
    values = run.settings
    model = "the offline world's tiny model" if values["model.path"] == OFFLINE else values["model.path"]
    teacher = "the symbolic teacher" if values["teacher.kind"] == "symbolic" else values["teacher.model"]
    device = f" on {run.environment['device']}" if "device" in run.environment else ""
    sentence = (
        f"{model} on {len(run.problems)} training problems with {teacher}, {values['iterations']} iterations of SFT and "
        f"GRPO, seed {values['seed']}; {duration(run.seconds)}{device}."
    )
    return text(sentence[0].upper() + sentence[1:])


def duration(seconds: float) -> str:
    """75.2 -> 1 min 15 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def unfinished(run: Run) -> str:
    """What a reader of half a run has to know; nothing for a whole one."""
    if not run.unfinished:
        return ""
    names = ", ".join(f"{stage.name} (begun)" if stage.state == "begun" else stage.name for stage in run.unfinished)
    return missing(
        f"This run is not finished: {len(run.unfinished)} of its {len(run.stages)} stages are not done, and what they "
        f"would give is left out below. Not done: {names}."
    )


def numbers(run: Run) -> str:
    """The few numbers to begin with."""
    found: list[tuple[str, str, str]] = []
    if run.results:
        own = [result for result in run.results if result.benchmark == run.results[0].benchmark]
        first, last = own[0], own[-1]
        change = f"{100 * first.accuracy:.1f} → {100 * last.accuracy:.1f} %"
        found.append((f"accuracy on {first.benchmark}", change, f"{first.stage} → {last.stage}"))
    if run.graded:
        hard = sum(record.group == "hard" for record in run.graded)
        found.append(("hard problems", f"{hard} of {len(run.graded)}", "for the base model"))
    steps = [step for record in run.bridged for step in record.steps]
    if steps:
        changed = sum(step.action != "keep" for step in steps)
        found.append(("steps that Bridge changed", f"{100 * changed / len(steps):.0f} %", f"of {len(steps)}"))
    sampled = [iteration for iteration in run.iterations if iteration.rollouts]
    if sampled:
        zeros = [100 * sum(sum(g.rewards) == 0 for g in it.rollouts) / len(it.rollouts) for it in sampled]
        found.append(("all-zero groups", " → ".join(f"{zero:.0f}" for zero in zeros) + " %", "after each SFT"))
    diagnosed = sum(len(iteration.diagnosed) for iteration in run.iterations)
    if diagnosed:
        found.append(("failures diagnosed", str(diagnosed), "and recycled into SFT"))
    return "\n".join(
        f"<div><dt>{text(label)}</dt><dd>{text(value)}<small>{text(small)}</small></dd></div>"
        for label, value, small in found
    )


def beside(run: Run) -> str:
    """How to read the paper's figures on this page."""
    if run.settings["data.train"] == OFFLINE:
        return text(
            "The paper's numbers on this page are of Qwen2.5-0.5B and Llama3.2-1B on GSM8K. This run is of a model of "
            "0.2 million parameters in the small offline world: theirs stand beside it for orientation and are not "
            "comparable."
        )
    return text(
        "The paper's numbers on this page are of Qwen2.5-0.5B and Llama3.2-1B, trained on GSM8K: comparable only as far "
        "as model, data and settings are the same."
    )


def story(stages: Sequence[Stage]) -> str:
    """Stage after stage."""
    longest = max((stage.seconds or 0.0 for stage in stages), default=0.0) or 1.0
    head = "<tr><th scope='col'>stage</th><th scope='col' class='left'>what came of it</th>"
    head += "<th scope='col'>rejected</th><th scope='col' class='left'>seconds</th></tr>"
    rows = "\n".join(_stage_row(stage, longest) for stage in stages)
    return f'<div class="scroll"><table class="stages"><thead>{head}</thead><tbody>\n{rows}\n</tbody></table></div>'


def _stage_row(stage: Stage, longest: float) -> str:
    kind = "open" if stage.state != "done" else "evaluation" if stage.name.startswith("eval/") else "work"
    name = f'<th scope="row">{text(stage.name)}<span class="does">{text(stage.does)}</span></th>'
    if stage.state != "done":
        state = "begun, not finished" if stage.state == "begun" else "not there"
        return f'<tr class="{kind}">{name}<td class="wrap">{state}</td><td></td><td></td></tr>'
    counts = ", ".join(f"{value} {label}" for label, value in stage.counts.items() if label != "rejected")
    rejected = str(len(stage.rejected) or "")
    bar = f'<span class="bar" style="width: {4 * stage.seconds / longest:.2f}rem"></span>'
    seconds = f'<td class="seconds"><span class="number">{stage.seconds:.1f}</span>{bar}</td>'
    return f'<tr class="{kind}">{name}<td class="wrap">{text(counts)}</td><td>{rejected}</td>{seconds}</tr>'


def rejections(stages: Iterable[Stage]) -> str:
    """Items that were left out, with the reason."""
    items = [(stage.name, record.problem_id, record.reason) for stage in stages for record in stage.rejected]
    if not items:
        return '<p class="note">No item was rejected.</p>'
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="left">{text(problem_id)}</td><td class="wrap">{text(reason)}</td></tr>'
        for name, problem_id, reason in items[:SHOWN_REJECTIONS]
    )
    more = f" The first {SHOWN_REJECTIONS} are listed." if len(items) > SHOWN_REJECTIONS else ""
    head = "<tr><th>stage</th><th class='left'>problem</th><th class='left'>reason</th></tr>"
    body = f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    return f"<details><summary>{len(items)} rejected items and why.{more}</summary>{body}</details>"


def settings(found: Sequence[Setting]) -> str:
    """The configuration as differences."""
    if not found:
        return '<p class="note">None: every setting is that of Tables 5 and 6 or a default.</p>'
    rows = "".join(
        f'<tr><th scope="row">{text(one.name)}</th><td class="left">{text(_origin(one))}</td>'
        f'<td class="theirs">{text(_value(one.expected))}</td><td>{text(_value(one.used))}</td></tr>'
        for one in found
    )
    head = "<tr><th>setting</th><th class='left'>its row</th><th class='theirs'>paper or default</th><th>this run</th></tr>"
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _origin(one: Setting) -> str:
    return f"{one.table}: {one.row}" if one.table else "no row; a default here"


def _value(value: object) -> str:
    if value is None or value == "" or value == []:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(one: Table) -> str:
    """A table with the paper's columns marked as such."""
    own = len(one.head) - one.num_paper
    classes = ["" if at < own else ' class="theirs"' for at in range(len(one.head))]
    over = ""
    if one.num_paper:
        over = f'<tr><th colspan="{own}" class="over"></th>'
        over += f'<th colspan="{one.num_paper}" class="over theirs">the paper, other data</th></tr>'
    head = "".join(f'<th scope="col"{kind}>{text(cell)}</th>' for cell, kind in zip(one.head, classes, strict=True))
    rows = "\n".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td{kind}>{text(cell)}</td>" for cell, kind in zip(row[1:], classes[1:], strict=True))
        + "</tr>"
        for row in one.rows
    )
    body = f'<div class="scroll"><table><thead>{over}<tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    note = f'<p class="note table-note">{text(one.note)} From <code>{text(one.source)}</code>.</p>'
    return f"<h3>{text(one.title)}</h3>\n{body}\n{note}"


def figure(one: Panel) -> str:
    """A figure with its caption."""
    caption = f"{text(one.shows)} From <code>{text(one.source)}</code>. The paper’s: {text(one.paper)}"
    return f"<figure><h3>{text(one.title)}</h3>{one.svg}<figcaption>{caption}</figcaption></figure>"


def capped(inspector: Inspector, total: int) -> str:
    """Which problems are here, as HTML."""
    shown = len(inspector.chosen)
    if shown == total:
        return text(f"All {total} training problems are here, and the paper's own example.")
    return text(
        f"{shown} of the {total} training problems are here, some of every kind (group, actions, rewards, rejections); "
        f"the other {total - shown} are in the run's files."
    )
