"""What the site needs besides the pages of docs/: other Markdown files, the source files that pages name, and MathML.

The pages are written for GitHub, with links relative to the repository. Here a link to a source file leads to a copy in
the site, at the line of the function that it names, and so does a name such as `reference/paper/grpo.py::grpo_loss`
without a link. Formulas become MathML while the site is built, so that no script runs and nothing is loaded for them.
"""

import ast
import os
import posixpath
import re
import unicodedata
from functools import cache
from html import unescape
from pathlib import Path

import matplotlib
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
# Markdown that lives elsewhere in the repository -> its page.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "reference/conformance/README.md": "conformance.md",
}
HOMES = {page: path for path, page in PAGES.items()}
WIDE = ("equations.md",)  # a table takes the room of the page's own contents
LANGUAGES = {".py": "python", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".cfg": "ini", ".toml": "toml"}

FENCED = re.compile(r"^(```+).*?^\1`*[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]+)?(?=\))")
NAMED = re.compile(
    r"`((?:reference|tests|configs)/[\w/.-]+\.\w+|run_paper\.py|setup\.cfg|constraints\.txt)(?:::[\w.]+)?`"
)
HTML_LINK = re.compile(r'<a href="([^"#]*source/([^"#]+)\.html)">(.*?)</a>', re.DOTALL)
HTML_NAME = re.compile(r"(<a [^>]*>.*?</a>|<pre.*?</pre>)|<code>([\w./-]+\.\w+)(?:::([\w.]+))?</code>", re.DOTALL)
STYLED = re.compile(r'<m([in]) mathvariant="(script|double-struck|bold)">(\w)</m\1>')
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    """Add the Markdown files outside of docs/, and a page for each source file that some page names."""
    texts = {path: (ROOT / path).read_text("utf-8") for path in PAGES}
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=texts[path]))
    for file in files.documentation_pages():
        if file.src_uri not in HOMES:
            texts[f"docs/{file.src_uri}"] = Path(file.abs_src_path).read_text("utf-8")
    for path in sorted({path for home, text in texts.items() for path in _named_in(home, text)}):
        files.append(File.generated(config, f"source/{path}.md", content=_source_page(path)))
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "STIXGeneral.ttf")
    files.append(File.generated(config, "site/STIXGeneral.ttf", abs_src_path=str(font)))
    return files


def _named_in(home, text):
    """The source files that a page links to or names."""
    prose = FENCED.sub("", text)
    linked = {_in_repository(home, target) for target, _ in LINK.findall(prose)}
    named = {match[1] for match in NAMED.finditer(prose)}
    return {path for path in linked | named if _is_source(path)}


def _in_repository(home, target):
    return posixpath.normpath(posixpath.join(posixpath.dirname(home), target))


def _is_source(path):
    inside = not path.startswith(("..", "docs/", "/")) and ":" not in path
    return inside and path not in PAGES and (ROOT / path).is_file()


def _source_page(path):
    text = (ROOT / path).read_text("utf-8")
    fence = "`" * (3 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    language = LANGUAGES.get(Path(path).suffix, "text")
    head = f"---\ntitle: {path}\nsearch:\n  exclude: true\nhide: [toc]\n---\n\n# `{path}`\n\n"
    return f'{head}{fence} {{.{language} linenums="1"}}\n{text.rstrip()}\n{fence}\n'


def on_page_markdown(markdown, page, config, files):
    """Links as they are in the repository -> as they are in the site."""
    uri = page.file.src_uri
    if uri.startswith("source/"):
        return markdown
    if uri in WIDE:
        page.meta["hide"] = ["toc"]
    home = HOMES.get(uri, f"docs/{uri}")

    def moved(match):
        target, anchor = match[1], match[2] or ""
        path = _in_repository(home, target)
        if path in PAGES:
            path = PAGES[path]
        elif _is_source(path):
            path = f"source/{path}.md"
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        else:
            return match[0]  # an address, or a mistake that MkDocs will name
        return posixpath.relpath(path, posixpath.dirname(uri) or ".") + anchor

    parts, at = [], 0
    for fenced in FENCED.finditer(markdown):
        parts += [LINK.sub(moved, markdown[at : fenced.start()]), fenced[0]]
        at = fenced.end()
    return "".join([*parts, LINK.sub(moved, markdown[at:])])


def on_page_content(html, page, config, files):
    """Lines behind links to source files, links behind names of source files, MathML."""
    if page.file.src_uri.startswith("source/"):
        return html
    root = os.path.relpath(".", posixpath.dirname(page.file.dest_uri) or ".")

    def with_line(match):
        return f'<a href="{match[1]}{_anchor(match[2], _text(match[3]))}">{match[3]}</a>'

    def with_link(match):
        path, name = match[2], match[3]
        if match[1] or files.get_file_from_path(f"source/{path}.md") is None:
            return match[0]
        return f'<a href="{root}/source/{path}.html{_anchor(path, name or "")}">{match[0]}</a>'

    html = HTML_NAME.sub(with_link, HTML_LINK.sub(with_line, html))
    return FORMULA.sub(lambda match: _mathml(unescape(match[2]), "block" if match[1] == "div" else "inline"), html)


def _text(html):
    return unescape(re.sub(r"<[^>]+>", "", html))


def _anchor(path, text):
    """`#...` of the line that defines what a link says: a name, `path::name`, or a test's name in words."""
    lines = _lines(path) if path.endswith(".py") else {}
    name = text.rpartition("::")[2]
    line = lines.get(name) or lines.get(f"test_{name.replace(' ', '_')}")
    return f"#__codelineno-0-{line}" if line else ""


@cache
def _lines(path):
    """Each name of a file, `Class.method` too, and its line."""
    lines = {}
    for node in ast.parse((ROOT / path).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines[node.name] = node.lineno
        if isinstance(node, ast.ClassDef):
            lines |= {f"{node.name}.{one.name}": one.lineno for one in node.body if isinstance(one, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            lines |= {target.id: node.lineno for target in targets if isinstance(target, ast.Name)}
    return lines


@cache
def _mathml(formula, display):
    # latex2mathml has no \arg; `\mathrm{argmax}_` would not survive GitHub's Markdown
    mathml = convert(formula.replace("\\arg\\max", "\\mathrm{argmax}"), display=display)
    if "\\" in mathml:
        raise PluginError(f"latex2mathml does not know all of the formula {formula!r}")
    return STYLED.sub(lambda match: f"<m{match[1]}>{_styled(match[2], match[3])}</m{match[1]}>", mathml)


def _styled(style, letter):
    """A script, double-struck or bold character: browsers want it as a code point, and ignore the attribute."""
    name = f"{style.upper()} {unicodedata.name(letter).replace('LATIN ', '').replace('LETTER ', '')}"
    try:
        return unicodedata.lookup(f"MATHEMATICAL {name}")
    except KeyError:  # one of the few that Unicode had before: SCRIPT CAPITAL B
        return unicodedata.lookup(name)
