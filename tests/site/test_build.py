"""The site is built without a warning, each link in it leads somewhere, and no page loads anything from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """The links, anchors and loaded files of one page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.loaded, self.formulas = [], set(), [], 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.formulas += tag == "math"
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if values.get(LOADED.get(tag, "")):
            self.loaded.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_every_page_of_docs_and_the_two_beside_it_are_in_the_site(site, pages):
    expected = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    expected |= {Path("index.html"), Path("CONTRIBUTING.html"), Path("conformance.html")}
    assert {site / path for path in expected} <= set(pages)


def test_every_link_and_anchor_leads_somewhere(site, pages):
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file() and target.is_relative_to(site), (path.name, link)
            if address.fragment and target in pages:
                assert unquote(address.fragment) in pages[target].anchors, (path.name, link)


def test_a_name_leads_to_the_line_that_defines_it(site):
    html = (site / "equations.html").read_text("utf-8")
    source = (site / "source" / "reference" / "paper" / "grpo.py.html").read_text("utf-8")
    (line,) = re.findall(r'href="source/reference/paper/grpo\.py\.html#__codelineno-0-(\d+)"><code>grpo_loss<', html)
    text = (ROOT / "reference" / "paper" / "grpo.py").read_text("utf-8").split("\n")[int(line) - 1]
    assert text == "def grpo_loss(" and f'id="__codelineno-0-{line}"' in source
    tests = re.findall(r'href="source/tests/paper/test_\w+\.py\.html(#__codelineno-0-\d+)?"', html)
    assert len(tests) > 50 and all(tests)


def test_no_page_loads_anything_from_elsewhere(site, pages):
    assert all(urlsplit(address).scheme in ("", "data") for page in pages.values() for address in page.loaded)
    for path in site.rglob("*.css"):
        for address in re.findall(r"url\(\s*[\"']?([^)\"']*)|@import", path.read_text("utf-8")):
            assert urlsplit(address).scheme in ("", "data"), (path.name, address)


def test_every_formula_is_mathml(site, pages):
    equations = (ROOT / "docs" / "equations.md").read_text("utf-8")
    assert pages[site / "equations.html"].formulas == len(re.findall(r"\$[^$\n]+\$", equations))
    for path in pages:
        if "source" not in path.relative_to(site).parts:
            assert 'class="arithmatex"' not in path.read_text("utf-8"), path.name
