"""docs/reading_guide.md goes through the whole paper; its symbols are those of the equations, its names in the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reading_guide.md").read_text(encoding="utf-8")
EQUATIONS = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
SYMBOLS = PAGE.split("\n## Symbols\n")[1]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SYMBOLS.splitlines() if line.startswith("| ")]
ROWS = ROWS[1:]
# A letter with what stands directly below it, a Greek letter, a word in \\mathrm.
WORD = r"\\math(?:rm|cal|bf|bb)\s?\{?[A-Za-z0-9]+\}?"
FUNCTIONS = ("min", "max", "log", "arg", "clip", "mean", "std", "argmax", "cos")


def letters_of(formula):
    """The letters of a formula, each alone: `\\tau`, `\\mathcal D`, `r`; names of functions left out."""
    formula = re.sub(
        r"\\(?:quad|big|frac|sum|min|max|log|cos|pi(?= \\frac)|binom|mid|to|cup|mapsto|sim)(?![A-Za-z])", " ", formula
    )
    words = {re.sub(r"[\s{}]", "", word) for word in re.findall(WORD, formula)}
    words = {word for word in words if word.removeprefix("\\mathrm") not in FUNCTIONS}
    rest = re.sub(WORD, " ", formula)
    greek = set(re.findall(r"\\(?:theta|pi|rho|tau|lambda|epsilon|delta|beta|eta|ell)(?![A-Za-z])", rest))
    latin = set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", re.sub(r"\\[a-zA-Z]+", " ", rest)))
    return words | greek | latin


def formulas(text):
    return re.findall(r"\$([^$\n]+)\$", text)


def test_every_letter_of_the_equations_is_explained():
    used = set().union(*(letters_of(formula) for formula in formulas(EQUATIONS)))
    explained = set().union(*(letters_of(formula) for row in ROWS for formula in formulas(row[0])))
    assert {"\\rho", "\\mathcalD", "G"} <= used
    # j counts questions, i responses or steps, e is also the base of the exponential: said where they stand.
    assert used - explained <= {"j", "i"}


def test_every_equation_is_in_the_column_of_equations():
    named = {number for row in ROWS for number in re.findall(r"\d+", row[4])}
    assert named == {str(number) for number in range(1, 35)}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_name_of_a_row_is_in_a_file_that_it_links_to(row):
    assert len(row) == 5
    links = re.findall(r"\]\(\.\./([^)]+)\)", row[3])
    source = "\n".join((ROOT / path).read_text("utf-8") for path in links)
    names = re.findall(r"`([^`]+)`", row[3])
    assert links and names
    for name in names:
        assert re.search(rf"\b{re.escape(name)}\b", source), f"{name} is not in {links}"


def test_the_guide_has_every_section_of_the_paper(paper_text):
    sections = re.findall(r"^(\d(?:\.\d)?|[A-F]\.\d) [A-Z][A-Za-z-]+ ", paper_text, flags=re.MULTILINE)
    sections += re.findall(r"^([1-5]) [A-Z][a-z]+$", paper_text, flags=re.MULTILINE)
    headings = re.findall(r"^## (?:Section|Appendix) ([\w.]+?):", PAGE, flags=re.MULTILINE)
    assert {"3.2", "B.3", "C.2", "F.2"} <= set(sections) and len(set(headings)) == len(headings)
    for section in set(sections):
        within = any(section.startswith(heading) or heading.startswith(section) for heading in headings)
        assert within, f"section {section} is not in the guide"


def test_ranges_and_numbers_of_choices_exist():
    entries = (ROOT / "docs" / "ambiguities.md").read_text("utf-8")
    for number in set(re.findall(r"\bA(\d+)\b", PAGE)):
        assert f"\n## A{number}. " in entries, number
