"""The page: one file, nothing loaded, every text escaped, halves of runs told as such."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reference.report import page as page_module
from reference.report.__main__ import main
from reference.report.markup import duration, text
from reference.report.page import embedded, page, write_report
from reference.report.story import read_run

ROOT = Path(__file__).parents[2]
VOID = {"meta", "input"}


class Elements(HTMLParser):
    """Every element with its attributes, and whether they close in order."""

    def __init__(self, html):
        super().__init__()
        self.found, self.open, self.shown = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.shown.append(data)


def data_of(html, name):
    """The JSON of a script element."""
    return re.search(rf'<script type="application/[\w-]+" id="{name}">(.*?)</script>', html, re.DOTALL)[1]


@pytest.fixture(scope="module")
def html(small_run):
    return (small_run / "report.html").read_text(encoding="utf-8")


def test_a_run_ends_with_its_report(small_run, html):
    assert html == page(read_run(small_run))
    assert not list(small_run.glob("*.unfinished"))


def test_the_page_is_well_formed_and_loads_nothing(html):
    elements = Elements(html)
    assert elements.open == []
    for tag, attributes in elements.found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form") or tag == "form"
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert attributes.get(name, "#").startswith("#"), attributes
    assert "@import" not in html and "url(" not in re.sub(r"url\(#\w+\)", "", html)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_every_label_and_every_link_leads_somewhere(html):
    elements = Elements(html).found
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    for _, attributes in elements:
        for name in ("aria-labelledby", "aria-controls"):
            assert attributes.get(name, "main") in ids
        assert attributes.get("href", "#main")[1:] in ids


def test_the_policy_lets_only_the_pages_own_script_run(html):
    script = html[html.rindex("<script>") + len("<script>") : html.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert policy.startswith("default-src 'none'; ") and f"script-src 'sha256-{digest}'" in policy


def test_the_embedded_data_is_that_of_every_problem(small_run, html):
    index, details = json.loads(data_of(html, "index")), data_of(html, "details").split("\n")
    assert len(index) == len(details) == 13
    assert all(isinstance(json.loads(line), dict) for line in details)
    meta = json.loads(data_of(html, "meta"))
    used = json.loads((small_run / "3_bridge/calibration.json").read_text())["used"]
    assert meta["thresholds"]["difficulty"] == used["tau_difficulty"] and meta["iterations"] == 2


def test_hostile_texts_stay_texts(spoiled, hostile):
    html = page(read_run(spoiled))
    html.encode("utf-8")  # no half of a surrogate pair
    assert html.count("<script") == 4 and html.count("</script") == 4 and "<img" not in html
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", html)
    assert Elements(html).open == []
    question = json.loads(data_of(html, "index"))[1]["question"]
    assert question.endswith(hostile)
    detail = json.loads(data_of(html, "details").split("\n")[1])
    assert detail["rollouts"][0]["responses"][0]["text"].endswith(hostile)
    assert "window.hacked = 1" in "".join(Elements(html).shown)  # the reason of a rejection, as text


def test_the_same_holds_for_single_texts():
    assert text("<b> & \"'") == "&lt;b&gt; &amp; &quot;&#x27;"
    assert text("a\ud83d\x00\x1bb\n\t\u2028") == "a\ufffd\ufffd\ufffdb\n\t\u2028"
    assert text("\U0001f600") == "\U0001f600" and text(3) == "3"
    assert json.loads(embedded("</script>\ud83d\u2028")) == "</script>\ud83d\u2028"
    assert "<" not in embedded("</script>") and embedded("\u2028").isascii()
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded(float("nan"))


def test_half_a_run_says_what_is_missing(copied):
    for name in ("iter2", "iter1/3_grpo", "iter1/4_recycle"):
        shutil.rmtree(copied / name)
    for path in [*copied.glob("eval/iter2*"), copied / "eval/iter1-3_grpo"]:
        shutil.rmtree(path)
    html = write_report(copied).read_text(encoding="utf-8")
    shown = "".join(Elements(html).shown)
    assert "This run is not finished: 8 of its 17 stages are not done" in shown
    assert "iter1/3_grpo" in shown and "GRPO reward" not in shown and "SFT loss" in shown
    detail = json.loads(data_of(html, "details").split("\n")[1])
    assert detail["rollouts"][1] is None and detail["failures"][1] is None


@pytest.mark.parametrize("kept", [[], ["eval"], ["eval", "1_difficulty"], ["2_traces"], ["3_bridge"], ["iter1"]])
def test_any_stages_alone_give_a_report(copied, kept):
    for name in {"eval", "1_difficulty", "2_traces", "3_bridge", "iter1", "iter2"} - set(kept):
        shutil.rmtree(copied / name)
    html = write_report(copied).read_text(encoding="utf-8")
    assert Elements(html).open == [] and "This run is not finished" in html
    assert len(data_of(html, "details").split("\n")) == 13


def test_a_finished_run_says_nothing_of_the_kind(html):
    assert "not finished" not in "".join(Elements(html).shown)


def test_more_problems_than_fit_are_counted(copied, monkeypatch):
    monkeypatch.setattr(page_module, "MAX_PROBLEMS", 5)
    html = page(read_run(copied))
    assert len(json.loads(data_of(html, "index"))) == 6
    assert "5 of the 12 training problems are here" in html and "the other 7 are in the run" in html


def test_a_report_is_written_anew_from_the_files_alone(copied):
    path = copied / "report.html"
    before = path.read_text(encoding="utf-8")
    path.write_text("old")
    command = [sys.executable, "-m", "reference.report", str(copied)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, f"report: {path}\n", "")
    assert path.read_text(encoding="utf-8") == before.replace(">small", ">copied")


def test_a_folder_that_is_no_run_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reference.report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = f"{tmp_path} has no config.json; give the folder of a run, such as runs/tiny\n"
    assert capsys.readouterr() == ("", f"python -m reference.report: {said}")


@pytest.mark.parametrize(("seconds", "said"), [(3.14, "3.1 s"), (75.2, "1 min 15 s"), (7260, "2 h 1 min")])
def test_durations(seconds, said):
    assert duration(seconds) == said
