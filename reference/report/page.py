"""report.html: a run on one page that loads nothing from anywhere.

Whatever a model, a teacher or a user wrote is text here: escaped in the page, and in the inspector's data JSON that the
page's script puts into text nodes. A content security policy lets no other script run and nothing be fetched.
"""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from string import Template

from reference.engines.artifacts import write_whole
from reference.records import Action
from reference.report import markup
from reference.report.inspector import Inspector
from reference.report.markup import text
from reference.report.panels import panels
from reference.report.settings import differences
from reference.report.story import Run, read_run
from reference.report.tables import tables

FILE_NAME = "report.html"
# What the inspector holds of a large run.
MAX_PROBLEMS = 1000
MAX_SHADED_TOKENS = 1_500_000  # at about five bytes each: the page still opens within a second
# Algorithm 1's line for each operation.
LINES = {Action.DROP: 13, Action.COMPRESS: 15, Action.KEEP: 19, Action.EXPAND: 21, Action.LOCALIZE: 26}


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
    template, style, tabs, rest = (
        parts.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "tabs.js", "page.js")
    )
    script = tabs + rest
    inspector = Inspector(run, MAX_PROBLEMS, MAX_SHADED_TOKENS)
    made = [markup.table(one) for one in tables(run)] or [markup.callout("No stage that a table is of is done yet.")]
    drawn = [markup.figure(one) for one in panels(run)] or [markup.callout("No stage that a figure is of is done yet.")]
    return Template(template).substitute(
        policy=_policy(script),
        style=style,
        script=script,
        name=text(run.name),
        lead=markup.lead(run),
        unfinished=markup.unfinished(run),
        numbers=markup.numbers(run),
        beside=markup.beside(run),
        story=markup.story(run.stages),
        rejected=markup.rejections(run.stages),
        settings=markup.settings(differences(run.settings)),
        environment=text(" · ".join(f"{name} {value}" for name, value in run.environment.items())),
        tables="\n".join(made),
        figures="\n".join(drawn),
        capped=markup.capped(len(inspector.chosen), len(run.problems)),
        meta=embedded({"thresholds": inspector.thresholds(), "lines": LINES, "iterations": len(run.iterations)}),
        index=embedded(inspector.index()),
        details="\n".join(map(embedded, inspector.details())),  # a line each: the page reads those that it shows
    )


def embedded(value: object) -> str:
    """JSON for a script element: ASCII, so that no sign is lost, and with no `<`, so that nothing can end it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _policy(script: str) -> str:
    """Nothing may be loaded, and no script may run but the page's own, which is known by its hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    allowed = f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
