"""The stages of a run by name, and what they are expected to cost (`--dry-run`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reference.config import Config
from reference.paper.reported import QWEN, TABLE_4, TABLE_9_STEPS, TABLE_9_TOKENS
from reference.records import DifficultyGroup, Problem

PHASES = ("1_medium", "2_bridge", "3_recycled")
CHARACTERS_PER_TOKEN = 4  # a rule of thumb for English
JUDGE_PROMPT_TOKENS = 300  # the rules of Appendix D.1 around question and trace
DIAGNOSIS_TOKENS = 250  # what a seven-field diagnosis takes


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


@dataclass(frozen=True)
class Expected:
    """What a stage is expected to take. Tokens are counted as read and written together."""

    stage: str
    size: str
    rollouts: int = 0
    teacher_calls: int = 0
    teacher_tokens: int = 0


def expected_work(
    config: Config, problems: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]]
) -> list[Expected]:
    """The expected cost of each stage: difficulty shares as in Table 4, steps and tokens of a trace as in Table 9.

    Both are the paper's for Qwen2.5-0.5B; this model's own are known once the first stages have run.
    """
    n = len(problems)
    shares = {group: size / sum(TABLE_4[QWEN].values()) for group, size in TABLE_4[QWEN].items()}
    medium, hard = round(n * shares[DifficultyGroup.MEDIUM]), round(n * shares[DifficultyGroup.HARD])
    question = sum(len(problem.question) for problem in problems) // (n * CHARACTERS_PER_TOKEN)
    trace, steps = TABLE_9_TOKENS[QWEN].mean, TABLE_9_STEPS[QWEN].mean
    judged = round(hard * steps)
    bridge_calls = 3 * judged  # importance, jumpiness, and at most one rewriting for each step
    bridge_tokens = round(bridge_calls * (JUDGE_PROMPT_TOKENS + question + trace))
    tests = sum(len(test) for test in benchmarks.values())
    sampled = len(next(iter(benchmarks.values()), [])) * config.evaluation.pass_samples
    table = {
        "1_difficulty": Expected("", f"{n} problems", rollouts=n * config.difficulty.num_samples),
        "2_traces": Expected(
            "", f"{medium + hard} traces", 0, medium + hard, round((medium + hard) * (question + trace))
        ),
        "3_bridge": Expected("", f"{hard} traces, {judged} steps", 0, bridge_calls, bridge_tokens),
        "1_medium": Expected("", f"{medium} samples"),
        "2_bridge": Expected("", f"{hard} traces and their local samples"),
        "3_recycled": Expected("", f"{3 * hard} samples"),
        "2_filter": Expected("", f"{n} problems", rollouts=n * config.grpo.num_rollouts),
        "3_grpo": Expected("", f"{n - hard} problems", (n - hard) * config.grpo.num_rollouts * config.grpo.epochs),
        "4_recycle": Expected("", f"{hard} failures", 0, hard, round(hard * (question + trace + DIAGNOSIS_TOKENS))),
        "eval": Expected("", f"{tests} problems", rollouts=tests + sampled),
    }
    kinds = [(name, "eval" if name.startswith("eval/") else name.rsplit("/", 1)[-1]) for name in stage_names(config)]
    return [
        Expected(name, work.size, work.rollouts, work.teacher_calls, work.teacher_tokens)
        for name, work in ((name, table[kind]) for name, kind in kinds)
    ]


def describe(expected: Sequence[Expected]) -> str:
    """The expected work as a table with its sums."""
    lines = [f"{'stage':28}{'size':>42}{'rollouts':>12}{'teacher calls':>15}{'their tokens':>14}"]
    total = Expected(
        "all together",
        "",
        sum(work.rollouts for work in expected),
        sum(work.teacher_calls for work in expected),
        sum(work.teacher_tokens for work in expected),
    )
    for work in [*expected, total]:
        lines.append(
            f"{work.stage:28}{work.size:>42}{work.rollouts or '':>12}{work.teacher_calls or '':>15}"
            f"{work.teacher_tokens or '':>14}"
        )
    return "\n".join(lines)
