"""Section 3.1: n responses to each problem, its correctness rate, its difficulty group (Eqs. 1-3)."""

from collections import Counter
from collections.abc import Callable, Sequence

from reference.config import Config
from reference.engines.artifacts import read_records
from reference.engines.batches import in_batches
from reference.engines.progress import with_progress
from reference.engines.run_folder import RunFolder
from reference.engines.student import Student
from reference.interfaces import Sampling
from reference.paper import verl
from reference.paper.answers import reward
from reference.paper.difficulty import (
    correctness_rate,
    difficulty_group,
    sample_responses,
)
from reference.records import Completion, DifficultyGroup, Graded, Problem
from reference.seeds import seed_of

STAGE = "1_difficulty"


def estimate_difficulty(run: RunFolder, config: Config, problems: Sequence[Problem], student: Student) -> list[Graded]:
    """Grade every training problem with the base model, once for the whole run (ambiguity A13)."""
    inputs = {"train": run.problems_path, "prompts": run.prompts_path, "base": student.base}
    stage = run.stage(STAGE, ("seed", "sampler", "vllm", "model", "equations", "difficulty"), inputs)
    if stage.is_done:
        return read_records(stage.path / "difficulty.jsonl", Graded)
    n = config.difficulty.num_samples
    reward_of = verl.reward if config.equations == "verl" else reward
    sampling = Sampling(config.difficulty.temperature, config.difficulty.top_p, config.difficulty.max_new_tokens)
    student.sampler.load(student.base)
    share = student.sampler.share
    log = stage.log("difficulty.jsonl", Graded, share)
    batches = share.of(in_batches(problems, max(1, config.sampler_rows // n)))
    for batch in with_progress(batches, len(batches), STAGE):
        if all(problem.id in log for problem in batch):
            continue
        seeds = [[seed_of(config.seed, STAGE, problem.id, i) for i in range(n)] for problem in batch]
        prompts = [student.prompt_ids(problem) for problem in batch]
        groups = sample_responses(student.sampler, prompts, seeds, sampling)
        log.add(_graded(problem, responses, reward_of) for problem, responses in zip(batch, groups, strict=True))
    graded = log.finish()
    sizes = Counter(record.group for record in graded)
    stage.finish({"problems": len(graded), **{str(group): sizes[group] for group in DifficultyGroup}})
    return graded


def _graded(problem: Problem, responses: Sequence[Completion], reward_of: Callable[[str, str], float]) -> Graded:
    rewards = [reward_of(response.text, problem.gold) for response in responses]
    accuracy = correctness_rate(rewards)
    return Graded(
        problem_id=problem.id,
        num_samples=len(rewards),
        num_correct=int(sum(rewards)),
        num_truncated=sum(not response.finished for response in responses),
        accuracy=accuracy,
        group=difficulty_group(accuracy),
    )
