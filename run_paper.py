"""Figure 2 of "Learning What to Learn" (arXiv 2606.04466) in code, one line a box.

accelerate launch run_paper.py                      the whole method on the offline world, preset `tiny`
accelerate launch run_paper.py tiny --dry-run       what it would do
accelerate launch run_paper.py tiny --grpo.kl-coef 0 --out runs/without_kl
"""

import sys

from reference.cli import main
from reference.config import Config
from reference.connect import World
from reference.engines.run_folder import RunFolder
from reference.paper.bridge import acquisition_set, bridge_set, medium_set, training_order
from reference.paper.recycling import next_sft_set
from reference.records import DifficultyGroup, SFTExample
from reference.stages.build_bridge import build_bridge
from reference.stages.distill_traces import distill_traces
from reference.stages.estimate_difficulty import estimate_difficulty
from reference.stages.evaluate import evaluate
from reference.stages.filter_rewards import filter_rewards
from reference.stages.recycle_failures import recycle_failures
from reference.stages.train_grpo import train_grpo
from reference.stages.train_sft import train_sft


def run_paper(run: RunFolder, config: Config, world: World) -> None:
    """The method, from the base model to the last iteration's checkpoint."""
    problems, tests, student, teacher = world.problems, world.benchmarks, world.student, world.teacher

    policy = student.base
    evaluate(run, config, "base", policy, tests, student, world.judge)
    graded = estimate_difficulty(run, config, problems, student)  # Eqs. 1-3
    traces = distill_traces(run, config, problems, graded, student, teacher)  # Eq. 4
    bridged, taus = build_bridge(run, config, problems, graded, traces, student, teacher)  # Algorithm 1

    medium_ids = {record.problem_id for record in graded if record.group is DifficultyGroup.MEDIUM}
    medium = medium_set(problems, [trace for trace in traces if trace.problem_id in medium_ids], student.prompts)
    bridge = bridge_set(problems, bridged, student.prompts, config.readings.local_samples)  # Eq. 11
    acquired = acquisition_set(medium, bridge)  # Eq. 12
    recycled: list[SFTExample] = []

    for t in range(1, config.iterations + 1):
        curriculum = training_order(next_sft_set(acquired, recycled), t, config.readings.later_sft)  # Eqs. 13, 20
        for phase, examples in curriculum:
            policy = train_sft(run, config, f"iter{t}/1_sft/{phase}", policy, examples, student)  # Eq. 21
            evaluate(run, config, f"iter{t}/1_sft/{phase}", policy, tests, student, world.judge)

        consolidation, failed = filter_rewards(run, config, f"iter{t}/2_filter", policy, problems, student)  # Eq. 14
        kept_ids = {group.problem_id for group in consolidation}
        kept = [problem for problem in problems if problem.id in kept_ids]
        policy = train_grpo(run, config, f"iter{t}/3_grpo", policy, kept, student)  # Eqs. 22-28
        evaluate(run, config, f"iter{t}/3_grpo", policy, tests, student, world.judge)

        if t < config.iterations:
            name = f"iter{t}/4_recycle"
            recycled = recycle_failures(
                run, config, name, problems, failed, taus, student, teacher
            )  # Eqs. 15-19, 29-34


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run_paper))
