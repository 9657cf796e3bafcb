"""Write the report of runs that are there already: python -m reference.report runs/tiny"""

import argparse
from pathlib import Path

from reference.report.page import write_report


def main() -> None:
    """Write report.html into each folder named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m reference.report", description="Write report.html into a run.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, finished or not")
    try:
        for run in parser.parse_args().runs:
            print(f"report: {write_report(run)}")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
