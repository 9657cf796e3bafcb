"""The report's figures: which of a run's numbers each one draws, and what its caption says."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from reference.paper.reported import LLAMA, QWEN, TABLE_4, stage_rows
from reference.records import Action, DifficultyGroup
from reference.report.figures import Bar, Part, bars, shares, steps
from reference.report.story import Run
from reference.stages.report import PAPER_ROW, wilson_interval

MODELS = {QWEN: "Qwen2.5-0.5B", LLAMA: "Llama3.2-1B"}
PAPERS = tuple(f"paper: {name}" for name in MODELS.values())
SMOOTHED = 5  # steps
KINDS = ("mixed", "all-zero", "all-one")


class Panel(NamedTuple):
    """A figure with its caption: what it shows, which file it is from, what the paper has beside it."""

    title: str
    svg: str
    shows: str
    source: str
    paper: str


def panels(run: Run) -> list[Panel]:
    """All figures that the run has the numbers for, in the order of the method."""
    drawn = [difficulty(run), actions(run), accuracy(run), outcomes(run), losses(run), *reward_and_updates(run)]
    return [panel for panel in drawn if panel is not None]


def difficulty(run: Run) -> Panel | None:
    """Figure 5."""
    if not run.graded:
        return None
    counts, total = Counter(record.group for record in run.graded), len(run.graded)
    rows = [
        Bar(
            str(group),
            100 * counts[group] / total,
            papers=[100 * TABLE_4[model][group] / sum(TABLE_4[model].values()) for model in MODELS],
        )
        for group in DifficultyGroup
    ]
    return Panel(
        "Difficulty groups",
        bars(rows, x_label="% of the training problems", about="share of each difficulty group", papers=PAPERS),
        f"Share of the {total} training problems in each group of Section 3.1, by the base model's own samples.",
        "1_difficulty/difficulty.jsonl",
        "Beside: the paper's Figure 5 and Table 4, GSM8K's 7473 problems.",
    )


def actions(run: Run) -> Panel | None:
    """Figure 10."""
    counts = Counter(step.action for record in run.bridged for step in record.steps)
    total = sum(counts.values())
    if not total:
        return None
    rows = [Bar(str(action), 100 * counts[action] / total) for action in Action]
    return Panel(
        "Bridge actions",
        bars(rows, x_label="% of the steps", about="share of each Bridge action"),
        f"How often Algorithm 1 chose each operation, over {total} steps of {len(run.bridged)} hard traces.",
        "3_bridge/bridged.jsonl",
        "The paper's Figure 10 prints no numbers.",
    )


def accuracy(run: Run) -> Panel | None:
    """The run's own ablation: Table 10's rows, one checkpoint after the other."""
    if not run.results:
        return None
    benchmark = run.results[0].benchmark
    rows = []
    for result in run.results:
        if result.benchmark == benchmark:
            low, high = wilson_interval(result.num_correct, result.num_problems)
            rows.append(Bar(result.stage, 100 * result.accuracy, 100 * low, 100 * high, _reported(result.stage)))
    return Panel(
        "Accuracy after each stage",
        bars(rows, x_label=f"% of {benchmark}", about="accuracy after each stage", papers=PAPERS, decimals=1),
        f"Greedy accuracy on {benchmark} of the checkpoint that each stage left; lines are 95% intervals (Wilson).",
        "eval/results.jsonl",
        "Beside: the paper's Table 10, on GSM8K-Platinum; stages with no mark have no row there.",
    )


def _reported(stage: str) -> Sequence[float | None]:
    if stage not in PAPER_ROW:
        return (None,) * len(MODELS)
    return [stage_rows(model)[PAPER_ROW[stage]].gsm8k_platinum for model in MODELS]


def outcomes(run: Run) -> Panel | None:
    """Figure 4."""
    rows = []
    for iteration in run.iterations:
        if iteration.outcomes:
            counts = Counter(outcome.kind for outcome in iteration.outcomes)
            parts = [100 * counts[kind] / len(iteration.outcomes) for kind in KINDS]
            rows.append((f"iteration {iteration.number}", parts))
    if not rows:
        return None
    return Panel(
        "All-zero groups",
        shares(rows, KINDS, x_label="% of the problems", about="rollout groups by reward"),
        "Rollout groups after each iteration's SFT, over all training problems. All-zero ones leave GRPO and are "
        "recycled (Eq. 14); mixed ones have an advantage to learn from.",
        "iterN/2_filter/rollouts.jsonl",
        "The paper's Figure 4 draws the all-zero ratio, which falls there; it prints no numbers.",
    )


def losses(run: Run) -> Panel | None:
    """The supervised phases."""
    parts = [
        Part(f"{iteration.number}·{phase.rpartition('_')[2]}", [row["loss"] for row in rows])
        for iteration in run.iterations
        for phase, rows in iteration.sft.items()
        if rows
    ]
    if not parts:
        return None
    return Panel(
        "SFT loss",
        steps(parts, y_label="nats per token", about="loss of the supervised phases"),
        "Eq. (21) at each optimizer step; a mark where a phase of the curriculum begins (iteration·phase).",
        "iterN/1_sft/*/metrics.jsonl",
        "The paper draws none.",
    )


def reward_and_updates(run: Run) -> list[Panel]:
    """Figures 8 and 9, and what the updates were like."""
    if not any(iteration.grpo for iteration in run.iterations):
        return []
    none = "The paper draws none."
    source = "iterN/3_grpo/metrics.jsonl"
    reward = Panel(
        "GRPO reward",
        steps(_grpo(run, "reward"), y_label="mean reward", about="reward of each rollout batch", smoothed=SMOOTHED),
        f"Mean reward of each rollout batch, and its centred mean over {SMOOTHED} steps; a mark at each iteration.",
        source,
        "The paper's Figures 8 and 9 are drawn alike.",
    )
    others = [
        ("kl", "KL to the reference", "nats per token", "Eq. (26), against the checkpoint the iteration began with."),
        ("entropy", "Entropy", "nats per token", "Of the policy at the sampled tokens, before the batch's updates."),
        ("clip_fraction", "Clip fraction", "share of tokens", "Tokens whose gradient Eq. (25) cut off."),
        ("response_length", "Response length", "tokens", "Mean length of the sampled responses."),
    ]
    drawn = [
        Panel(title, steps(_grpo(run, name), y_label=unit, about=title), shows, source, none)
        for name, title, unit, shows in others
    ]
    return [reward, *drawn]


def _grpo(run: Run, name: str) -> list[Part]:
    return [
        Part(f"iteration {iteration.number}", [row[name] for row in iteration.grpo])
        for iteration in run.iterations
        if iteration.grpo
    ]
