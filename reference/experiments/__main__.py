"""`python -m reference.experiments RESULTS`: the tables of a results folder in Markdown, as in docs/results.md."""

import sys
from pathlib import Path

from reference.config import TINY
from reference.experiments.effects import Effect
from reference.experiments.results import ClaimLine, Line
from reference.experiments.tables import claims_table, effects_table, read_csv, table
from reference.experiments.variants import experiments

USAGE = "usage: python -m reference.experiments FOLDER, the results/ of a run with --experiment"


def markdown(folder: Path) -> str:
    """Every experiment's table that the folder has, and the claims. Raises ValueError where it has none."""
    found = {name: one for name, one in experiments(TINY).items() if (folder / f"{name}.csv").exists()}
    if not found:
        raise ValueError(f"{folder} has no results; {USAGE}")
    needed = {"readings-effects.csv" if name == "readings" else "claims.csv" for name in found}
    for name in sorted(needed):
        if not (folder / name).exists():
            raise ValueError(f"{folder} has no {name}; run the experiment to its end")
    parts = [table(name, experiment, read_csv(folder / f"{name}.csv", Line)) for name, experiment in found.items()]
    if "readings-effects.csv" in needed:
        effects = read_csv(folder / "readings-effects.csv", Effect)
        parts.append(f"### What each reading moves\n\n{effects_table(effects)}")
    if "claims.csv" in needed:
        parts.append(f"### Claims\n\n{claims_table(read_csv(folder / 'claims.csv', ClaimLine))}")
    return "\n\n".join(parts)


def main(arguments: list[str]) -> int:
    """0, or 2 for a folder without results."""
    try:
        if len(arguments) != 1:
            raise ValueError(USAGE)
        print(markdown(Path(arguments[0])))
        return 0
    except ValueError as error:
        print(f"reference.experiments: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
