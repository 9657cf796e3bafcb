"""docs/testing.md names the folders and the marks that there are; mutmut's settings name what exists."""

import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
SETTINGS = ConfigParser()
SETTINGS.read(ROOT / "setup.cfg", encoding="utf-8")


def test_every_folder_of_tests_has_its_line():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*/test_*.py")}
    assert set(re.findall(r"^\| `(tests/\w+)` \|", PAGE, flags=re.MULTILINE)) == folders


def test_every_mark_has_its_line():
    marks = [line.split(":")[0] for line in SETTINGS["tool:pytest"]["markers"].strip().split("\n")]
    listed = PAGE.split("| Mark |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", listed, flags=re.MULTILINE)) == set(marks)


def test_the_mutants_are_those_of_the_equations_with_their_tests():
    mutmut = SETTINGS["mutmut"]
    assert (mutmut["source_paths"], mutmut["only_mutate"]) == ("reference", "reference/paper/*.py")
    assert mutmut["pytest_add_cli_args_test_selection"] == "tests/paper"
