"""`python -m reference.conformance MODULE`: does an implementation compute the paper's equations?

MODULE is a Python module or file with a function for each equation that it offers, named and called as the vectors say
(reference/conformance/README.md). Exit code 0 if all that is offered agrees, 1 if something differs, 2 for a mistake.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from reference.conformance.checking import check, described

OURS = "reference.conformance.adapters.ours"
USAGE = f"usage: python -m reference.conformance MODULE, such as {OURS} or my_adapter.py"


def load(name: str) -> ModuleType:
    """A module by its name or its file. Raises ValueError where there is none."""
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise ValueError(f"there is no file {name}; {USAGE}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None  # the name ends in .py
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    if name.startswith("."):  # relative to no package
        raise ValueError(f"{name} is no module and no Python file; {USAGE}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"cannot import {name} ({error}); {USAGE}") from error


def main(arguments: list[str]) -> int:
    """Print what agrees and what differs."""
    try:
        if len(arguments) != 1:
            raise ValueError(USAGE)
        results = check(vars(load(arguments[0])))
        if not any(one.offered for one in results):
            raise ValueError(f"{arguments[0]} offers none of the functions of the vectors; see the README beside them")
    except ValueError as error:
        print(f"reference.conformance: {error}", file=sys.stderr)
        return 2
    print(described(results))
    return 1 if any(one.offered and not one.agrees for one in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
