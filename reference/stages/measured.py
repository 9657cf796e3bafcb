"""What a run's finished stages have measured, so that `--dry-run` counts from it."""

from collections import Counter

from reference.config import Config
from reference.engines.artifacts import read_records
from reference.engines.run_folder import RECEIPT, RunFolder, read_receipt
from reference.records import DifficultyGroup, Graded, Trace
from reference.stages.plan import Measured


def measured_in(run: RunFolder, config: Config) -> Measured:
    """From the stages that are kept; for a variant also those of its run. Raises ValueError for a damaged file."""
    difficulty, traces = run.kept("1_difficulty"), run.kept("2_traces")
    if difficulty is None:
        return Measured()
    graded = read_records(difficulty / "difficulty.jsonl", Graded)
    hard = {record.problem_id for record in graded if record.group is DifficultyGroup.HARD}
    sizes = Counter(record.group for record in graded)
    found = read_records(traces / "traces.jsonl", Trace) if traces else []
    filters = {t: run.kept(f"iter{t}/2_filter") for t in range(1, config.iterations + 1)}
    return Measured(
        groups={group: sizes[group] for group in DifficultyGroup},
        hard_traces=[trace for trace in found if trace.problem_id in hard],
        failed={t: read_receipt(path / RECEIPT)["counts"]["all-zero"] for t, path in filters.items() if path},
    )
