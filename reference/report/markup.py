"""The report's HTML, piece by piece. Every text goes through `text`."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from reference.records import Action, DifficultyGroup
from reference.report.panels import Panel
from reference.report.settings import Setting
from reference.report.story import Run, Stage
from reference.report.tables import Table

OFFLINE = "offline"
SHOWN_REJECTIONS = 200
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def text(value: object) -> str:
    """Any text as HTML that shows it: signs that no page can hold become the replacement character."""
    whole = str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return escape(_CONTROL.sub("\ufffd", whole))


def callout(sentence: str) -> str:
    """A sentence that is not to be overlooked, such as what stands where nothing can be shown."""
    return f'<p class="callout">{text(sentence)}</p>'


def lead(run: Run) -> str:
    """The run in a sentence."""
    values = run.settings
    model = "the offline world's tiny model" if values["model.path"] == OFFLINE else values["model.path"]
    teacher = "the symbolic teacher" if values["teacher.kind"] == "symbolic" else values["teacher.model"]
    device = f" on {run.environment['device']}" if "device" in run.environment else ""
    sentence = (
        f"{model} on {len(run.problems)} training problems with {teacher}, {values['iterations']} iterations of SFT "
        f"and GRPO, seed {values['seed']}; {duration(run.seconds)}{device}."
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
    return callout(
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
        hard = sum(record.group is DifficultyGroup.HARD for record in run.graded)
        found.append(("hard problems", f"{hard} of {len(run.graded)}", "for the base model"))
    steps = [step for record in run.bridged for step in record.steps]
    if steps:
        changed = sum(step.action is not Action.KEEP for step in steps)
        found.append(("steps that Bridge changed", f"{100 * changed / len(steps):.0f} %", f"of {len(steps)}"))
    sampled = [iteration.outcomes for iteration in run.iterations if iteration.outcomes]
    if sampled:
        zeros = [100 * sum(one.kind == "all-zero" for one in outcomes) / len(outcomes) for outcomes in sampled]
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
    paper = "The paper's numbers on this page are of Qwen2.5-0.5B and Llama3.2-1B, trained on GSM8K. "
    if run.settings["data.train"] == OFFLINE:
        return text(
            f"{paper}This run is of a small model in the small offline world: theirs stand beside it for orientation "
            "and are not comparable."
        )
    return text(f"{paper}They are comparable only as far as model, data and settings are the same.")


def story(stages: Sequence[Stage]) -> str:
    """Stage after stage."""
    longest = max((stage.seconds or 0.0 for stage in stages), default=0.0) or 1.0
    head = '<th scope="col">stage</th><th scope="col" class="left">what came of it</th>'
    head += '<th scope="col">rejected</th><th scope="col" class="left">seconds</th>'
    return _scrolling([head], [_stage_row(stage, longest) for stage in stages], kind="stages")


def _stage_row(stage: Stage, longest: float) -> str:
    kind = "open" if stage.state != "done" else "evaluation" if stage.name.startswith("eval/") else "work"
    name = f'<th scope="row">{text(stage.name)}<span class="does">{text(stage.does)}</span></th>'
    if stage.state != "done":
        state = "begun, not finished" if stage.state == "begun" else "not there"
        return f'<tr class="{kind}">{name}<td class="wrap">{state}</td><td></td><td></td></tr>'
    assert stage.seconds is not None  # a stage that is done says how long it took
    counts = ", ".join(f"{value} {label}" for label, value in stage.counts.items() if label != "rejected")
    number = stage.counts.get("rejected")  # only where the teacher is asked
    rejected = "" if number is None else f'{text(number)}<span class="unit"> rejected</span>'
    bar = f'<span class="bar" style="width: {4 * stage.seconds / longest:.2f}rem"></span>'
    seconds = (
        f'<td class="seconds"><span class="number">{stage.seconds:.1f}</span><span class="unit"> s</span>{bar}</td>'
    )
    return f'<tr class="{kind}">{name}<td class="wrap">{text(counts)}</td><td>{rejected}</td>{seconds}</tr>'


def rejections(stages: Iterable[Stage]) -> str:
    """Items that were left out, with the reason."""
    items = [(stage.name, record.problem_id, record.reason) for stage in stages for record in stage.rejected]
    if not items:
        return '<p class="note">No item was rejected.</p>'
    rows = [
        f'<tr><th scope="row">{text(name)}</th><td class="left">{text(problem_id)}</td>'
        f'<td class="wrap">{text(reason)}</td></tr>'
        for name, problem_id, reason in items[:SHOWN_REJECTIONS]
    ]
    head = '<th scope="col">stage</th><th scope="col" class="left">problem</th><th scope="col" class="left">reason</th>'
    more = f" The first {SHOWN_REJECTIONS} are listed." if len(items) > SHOWN_REJECTIONS else ""
    return f"<details><summary>{len(items)} rejected and why.{more}</summary>{_scrolling([head], rows)}</details>"


def settings(found: Sequence[Setting]) -> str:
    """The configuration as differences."""
    if not found:
        return '<p class="note">None: every setting is that of Tables 5 and 6 or a default.</p>'
    rows = [
        f'<tr><th scope="row">{text(one.name)}</th>'
        f'<td class="left">{text(f"{one.table}: {one.row}" if one.table else "in no table")}</td>'
        f'<td class="theirs">{text(_value(one.expected))}</td><td>{text(_value(one.used))}</td></tr>'
        for one in found
    ]
    head = '<th scope="col">setting</th><th scope="col" class="left">row of the paper</th>'
    head += '<th scope="col" class="theirs">paper, or our default</th><th scope="col">this run</th>'
    return _scrolling([head], rows)


def _value(value: object) -> str:
    if value is None or value in ("", []):
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(one: Table) -> str:
    """A table with the paper's columns and rows marked as such."""
    own = len(one.head) - sum(width for _, width in one.papers)
    classes = ["left" if at < one.num_labels else "" if at < own else "theirs" for at in range(len(one.head))]
    head = "".join(
        f'<th scope="col" class="{kind}">{text(cell)}</th>' for cell, kind in zip(one.head, classes, strict=True)
    )
    heads = [head]
    if one.papers:
        theirs = "".join(f'<th colspan="{width}" class="over theirs">{text(name)}</th>' for name, width in one.papers)
        heads = [f'<td colspan="{own}" class="over"></td>{theirs}', head]
    rows = [
        f'<tr class="{"theirs" if at in one.paper_rows else ""}"><th scope="row">{text(row[0])}</th>'
        + "".join(f'<td class="{kind}">{text(cell)}</td>' for cell, kind in zip(row[1:], classes[1:], strict=True))
        + "</tr>"
        for at, row in enumerate(one.rows)
    ]
    note = f'<p class="note table-note">{text(one.note)} From <code>{text(one.source)}</code>.</p>'
    return f"<h3>{text(one.title)}</h3>\n{_scrolling(heads, rows)}\n{note}"


def _scrolling(heads: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    """A table that a narrow screen scrolls; the keyboard can scroll it too."""
    head, body = "".join(f"<tr>{cells}</tr>" for cells in heads), "\n".join(rows)
    whole = f'<table class="{kind}"><thead>{head}</thead><tbody>\n{body}\n</tbody></table>'
    return f'<div class="scroll" tabindex="0">{whole}</div>'


def figure(one: Panel) -> str:
    """A figure with its caption."""
    caption = f"{text(one.shows)} From <code>{text(one.source)}</code>. {text(one.paper)}"
    return f"<figure><h3>{text(one.title)}</h3>{one.svg}<figcaption>{caption}</figcaption></figure>"


def capped(shown: int, total: int) -> str:
    """Which problems the inspector has."""
    if shown == total:
        return text(f"All {total} training problems are here, and the paper's own example.")
    return text(
        f"{shown} of the {total} training problems are here, some of every kind (group, actions, rewards, rejections); "
        f"the other {total - shown} are in the run's files."
    )
