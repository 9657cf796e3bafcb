"""The stages of a run by name, and what they are expected to cost (`--dry-run`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reference.config import Config
from reference.paper.reported import LLAMA, QWEN, TABLE_4, TABLE_9_STEPS, TABLE_9_TOKENS
from reference.records import DifficultyGroup

PHASES = ("1_medium", "2_bridge", "3_recycled")
# What our prompts take around question, trace and step, in tokens, and what the teacher writes; rules of thumb.
JUDGE_PROMPT_TOKENS = 300  # Appendix D.1's rules
REWRITE_PROMPT_TOKENS = 120
DIAGNOSIS_PROMPT_TOKENS = 550  # Appendix D.2's rules
SOLVE_PROMPT_TOKENS = 100
DIAGNOSIS_TOKENS = 250  # a diagnosis of seven fields
SCORE_TOKENS = 2


@dataclass(frozen=True)
class DataSizes:
    """What the expected work follows from: training problems, their questions' mean length, test problems by name."""

    num_problems: int
    question_tokens: int
    tests: Mapping[str, int]


def stage_names(config: Config) -> list[str]:
    """Every stage of the run in order; an evaluation follows the stage whose checkpoint it evaluates."""
    names = [*evaluation_of(config, "base"), "1_difficulty", "2_traces", "3_bridge"]
    for t in range(1, config.iterations + 1):
        for phase in PHASES if t > 1 else PHASES[:2]:
            names += [f"iter{t}/1_sft/{phase}", *evaluation_of(config, f"iter{t}/1_sft/{phase}")]
        names += [f"iter{t}/2_filter", f"iter{t}/3_grpo", *evaluation_of(config, f"iter{t}/3_grpo")]
        if t < config.iterations:  # what the last iteration would recycle, no SFT would use
            names.append(f"iter{t}/4_recycle")
    return names


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


def expected_work(config: Config, sizes: DataSizes, names: Sequence[str] | None = None) -> list[Expected]:
    """The expected cost of each stage, of the method's or of those in `names`.

    Difficulty shares are as in Table 4, steps and tokens of a trace as in Table 9.

    They are those of the paper's model that the thresholds name, else of Qwen2.5-0.5B; this model's own are known once
    the first stages have run. A problem that fails is one of the hard ones.
    """
    n, question = sizes.num_problems, sizes.question_tokens
    model = LLAMA if config.recycling.tau_length == TABLE_9_TOKENS[LLAMA].mean else QWEN
    shares = {group: size / sum(TABLE_4[model].values()) for group, size in TABLE_4[model].items()}
    medium, hard = round(n * shares[DifficultyGroup.MEDIUM]), round(n * shares[DifficultyGroup.HARD])
    trace, steps = TABLE_9_TOKENS[model].mean, TABLE_9_STEPS[model].mean
    judged, step = round(hard * steps), trace / steps
    half = question + trace / 2  # a step is asked about together with what precedes it, half of the trace on average
    # Importance of each step, jumpiness of all but the first, and at most one rewriting for each.
    read = judged * (JUDGE_PROMPT_TOKENS + question + 2 * trace) + (judged - hard) * (JUDGE_PROMPT_TOKENS + half + step)
    read += judged * (REWRITE_PROMPT_TOKENS + half + step)
    written = (2 * judged - hard) * SCORE_TOKENS + judged * 1.5 * step
    taught, trained = medium + hard, n - hard if config.grpo.exclude_all_zero else n
    tests, first = sum(sizes.tests.values()), next(iter(sizes.tests.values()), 0)
    table = {
        "1_difficulty": Expected("", f"{n} problems", rollouts=n * config.difficulty.num_samples),
        "2_traces": Expected(
            "", f"{taught} traces", 0, taught, taught * (SOLVE_PROMPT_TOKENS + question), round(taught * trace)
        ),
        "3_bridge": Expected("", f"{hard} traces, {judged} steps", 0, 3 * judged - hard, round(read), round(written)),
        "1_medium": Expected("", f"{medium} samples"),
        "2_bridge": Expected("", f"{hard} traces and their local samples"),
        "3_recycled": Expected("", f"{3 * hard} samples"),
        "2_filter": Expected("", f"{n} problems", rollouts=n * config.grpo.num_rollouts),
        "3_grpo": Expected("", f"{trained} problems", trained * config.grpo.num_rollouts * config.grpo.epochs),
        "4_recycle": Expected(
            "",
            f"{hard} failures",
            0,
            hard,
            round(hard * (DIAGNOSIS_PROMPT_TOKENS + question + trace)),
            hard * DIAGNOSIS_TOKENS,
        ),
        "eval": Expected("", f"{tests} problems", rollouts=tests + first * config.evaluation.pass_samples),
    }
    lacking = [max(0, max(config.motivation.budgets) / trace - n * share) for share in shares.values()]
    for name, count in (("2_pools", n + round(sum(lacking))), ("2_all_traces", n)):
        read = count * (SOLVE_PROMPT_TOKENS + question)
        table[name] = Expected("", f"{count} traces", 0, count, read, round(count * trace))
    return [replace(table.get(_kind(name), DRAWN), stage=name) for name in names or stage_names(config)]


def _kind(name: str) -> str:
    return "eval" if name.startswith("eval/") else name.rsplit("/", 1)[-1]


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
