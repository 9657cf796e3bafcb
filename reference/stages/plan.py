"""The stages of a run by name, and what they are expected to cost (`--dry-run`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from reference.config import Config
from reference.paper.bridge import training_order
from reference.paper.reported import LLAMA, QWEN, TABLE_4, TABLE_9_STEPS, TABLE_9_TOKENS
from reference.records import DifficultyGroup, Trace

# What our prompts take around question, trace and step, in tokens, and what the teacher writes; rules of thumb.
JUDGE_PROMPT_TOKENS = 300  # Appendix D.1's rules
REWRITE_PROMPT_TOKENS = 120
DIAGNOSIS_PROMPT_TOKENS = 550  # Appendix D.2's rules
SOLVE_PROMPT_TOKENS = 70
DIAGNOSIS_TOKENS = 250  # a diagnosis of seven fields
SCORE_TOKENS = 2
REWRITING = {"expand", "localize", "compress"}  # the operations that the teacher is asked for


@dataclass(frozen=True)
class DataSizes:
    """What the expected work follows from: training problems, their questions' mean length, test problems by name."""

    num_problems: int
    question_tokens: int
    tests: Mapping[str, int]


@dataclass(frozen=True)
class Measured:
    """What the finished stages of a run say, to count from in place of the paper's tables; empty before they are done.

    `groups`: sizes. `hard_traces`: the teacher's usable traces of hard problems. `failed`: all-zero problems of an
    iteration.
    """

    groups: Mapping[DifficultyGroup, int] = field(default_factory=dict)
    hard_traces: Sequence[Trace] = ()
    failed: Mapping[int, int] = field(default_factory=dict)


NOTHING = Measured()


def stage_names(config: Config) -> list[str]:
    """Every stage of the run in order; an evaluation follows the stage whose checkpoint it evaluates."""
    names = [*evaluation_of(config, "base"), "1_difficulty", "2_traces", "3_bridge"]
    for t in range(1, config.iterations + 1):
        for name in sft_stages(config, t):
            names += [name, *evaluation_of(config, name)]
        names += [f"iter{t}/2_filter", f"iter{t}/3_grpo", *evaluation_of(config, f"iter{t}/3_grpo")]
        if t < config.iterations:  # what the last iteration would recycle, no SFT would use
            names.append(f"iter{t}/4_recycle")
    return names


def sft_stages(config: Config, t: int) -> list[str]:
    """The SFT stages of iteration t, in order: its last one gives the checkpoint that GRPO starts from."""
    return [f"iter{t}/1_sft/{phase}" for phase, _ in training_order([], t, config.readings.later_sft)]


def evaluation_of(config: Config, name: str) -> list[str]:
    """The evaluation stage of a checkpoint; none where no benchmark was given."""
    return [f"eval/{name.replace('/', '-')}"] if config.data.tests else []


def filter_of(name: str) -> str:
    """The filter of a stage's own iteration, whose rollouts `iter1/3_grpo` and `iter1/4_recycle` go by."""
    return f"{name.split('/')[0]}/2_filter"


@dataclass(frozen=True)
class Expected:
    """What a stage is expected to take."""

    stage: str
    size: str
    rollouts: int = 0
    teacher_calls: int = 0
    tokens_read: int = 0
    tokens_written: int = 0


DRAWN = Expected("", "samples drawn from earlier stages")  # an experiment's SFT


def expected_work(
    config: Config, sizes: DataSizes, names: Sequence[str] | None = None, measured: Measured = NOTHING
) -> list[Expected]:
    """The expected cost of each stage, of the method's or of those in `names`.

    What is not `measured` yet is as in the paper: difficulty shares as in Table 4, steps and tokens of a trace as in
    Table 9. They are those of the paper's model that the thresholds name, else of Qwen2.5-0.5B. An iteration has as
    many failures as the one before it, the first as many as there are hard problems.
    """
    model = LLAMA if config.recycling.tau_length == TABLE_9_TOKENS[LLAMA].mean else QWEN
    of_paper = sum(TABLE_4[model].values())
    groups = measured.groups or {
        group: round(sizes.num_problems * size / of_paper) for group, size in TABLE_4[model].items()
    }
    # Rounded shares need not add up to the problems; measured groups do, without those that were left out as too long.
    n, question = sum(measured.groups.values()) or sizes.num_problems, sizes.question_tokens
    medium, hard = groups[DifficultyGroup.MEDIUM], groups[DifficultyGroup.HARD]
    bridged, trace, steps = hard, TABLE_9_TOKENS[model].mean, TABLE_9_STEPS[model].mean
    if measured.hard_traces:
        bridged = len(measured.hard_traces)
        trace = fmean(one.num_tokens for one in measured.hard_traces)
        steps = fmean(one.num_steps for one in measured.hard_traces)
    judged, step = round(bridged * steps), trace / steps
    rewritten = 0 if REWRITING <= set(config.bridge.without) else judged  # at most: which ones, only the scores tell
    half = question + trace / 2  # a step is asked about together with what precedes it, half of the trace on average
    # Importance of each step, jumpiness of all but the first, and at most one rewriting for each.
    asked = 2 * judged - bridged
    read = judged * (JUDGE_PROMPT_TOKENS + question + 2 * trace)
    read += (judged - bridged) * (JUDGE_PROMPT_TOKENS + half + step)
    read += rewritten * (REWRITE_PROMPT_TOKENS + half + step)
    written = asked * SCORE_TOKENS + rewritten * 1.5 * step
    taught = medium + hard
    tests, first = sum(sizes.tests.values()), next(iter(sizes.tests.values()), 0)
    table = {
        "1_difficulty": Expected("", f"{n} problems", rollouts=n * config.difficulty.num_samples),
        "2_traces": Expected(
            "", f"{taught} traces", 0, taught, taught * (SOLVE_PROMPT_TOKENS + question), round(taught * trace)
        ),
        "3_bridge": Expected(
            "", f"{bridged} traces, {judged} steps", 0, asked + rewritten, round(read), round(written)
        ),
        "1_medium": Expected("", f"{medium} samples"),
        "2_bridge": Expected("", f"{bridged} traces and their local samples"),
        "2_filter": Expected("", f"{n} problems", rollouts=n * config.grpo.num_rollouts),
        "eval": Expected("", f"{tests} problems", rollouts=tests + first * config.evaluation.pass_samples),
    }
    table |= _of_iterations(config, measured, n, hard, DIAGNOSIS_PROMPT_TOKENS + question + trace)
    lacking = [max(0, max(config.motivation.budgets) / (trace + 1) - size) for size in groups.values()]
    for name, count in (("2_pools", n + round(sum(lacking))), ("2_all_traces", n)):
        read = count * (SOLVE_PROMPT_TOKENS + question)
        table[name] = Expected("", f"{count} traces", 0, count, read, round(count * trace))
    names = names or stage_names(config)
    return [replace(table.get(name) or table.get(_kind(name), DRAWN), stage=name) for name in names]


def _of_iterations(
    config: Config, measured: Measured, n: int, hard: int, diagnosis_prompt: float
) -> dict[str, Expected]:
    """What follows from each iteration's failures."""
    table, failed = {}, hard
    for t in range(1, config.iterations + 1):
        failed = measured.failed.get(t, failed)
        trained = n - failed if config.grpo.exclude_all_zero else n
        rollouts = trained * config.grpo.num_rollouts * config.grpo.epochs
        tokens = round(failed * diagnosis_prompt), failed * DIAGNOSIS_TOKENS
        table[f"iter{t}/3_grpo"] = Expected("", f"{trained} problems", rollouts)
        table[f"iter{t}/4_recycle"] = Expected("", f"{failed} failures", 0, failed, *tokens)
        table[f"iter{t + 1}/1_sft/3_recycled"] = Expected("", f"{3 * failed} samples")
        table[f"iter{t + 1}/1_sft/union"] = Expected("", f"the sets of iteration 1 and {3 * failed} samples")
    return table


def _kind(name: str) -> str:
    return "eval" if name.startswith("eval/") else name.rsplit("/", 1)[-1]


def sources(measured: Measured) -> str:
    """Where the expected work comes from, in one line: what this run has measured, the paper's tables, guesses."""
    ours, papers = [], []
    for name, table, known in (
        ("difficulty groups", "Table 4", measured.groups),
        ("traces of hard problems", "Table 9", measured.hard_traces),
    ):
        if known:
            ours.append(name)
        else:
            papers.append(f"{name} ({table})")
    ours += [f"failures of iteration {t}" for t in measured.failed]
    parts = [f"measured in this run: {', '.join(ours)}"] if ours else []
    parts += [f"from the paper: {', '.join(papers)}"] if papers else []
    fail = "further failures as before" if measured.failed else "as many failures as hard problems"
    return "; ".join([*parts, f"guessed: every step rewritten, {fail}"])


def describe(expected: Sequence[Expected], total: Expected | None = None) -> str:
    """The expected work as a table, with its sums unless a total is given."""
    width = max([28, *(len(work.stage) + 1 for work in expected)])
    lines = [f"{'stage':{width}}{'size':>42}{'rollouts':>12}{'teacher calls':>15}{'tokens read':>13}{'written':>12}"]
    for work in [*expected, total or totalled(expected)]:
        numbers = (work.rollouts, work.teacher_calls, work.tokens_read, work.tokens_written)
        cells = [f"{number or '':>{space}}" for number, space in zip(numbers, (12, 15, 13, 12), strict=True)]
        lines.append(f"{work.stage:{width}}{work.size:>42}{''.join(cells)}")
    return "\n".join(lines)


def totalled(expected: Sequence[Expected]) -> Expected:
    """The sum over the stages."""
    return Expected(
        "all together",
        "",
        sum(work.rollouts for work in expected),
        sum(work.teacher_calls for work in expected),
        sum(work.tokens_read for work in expected),
        sum(work.tokens_written for work in expected),
    )
