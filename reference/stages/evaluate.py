"""Section 4.1: greedy accuracy on every benchmark, and pass@8 from samples on the in-domain one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from reference.config import Config
from reference.engines.artifacts import read_records, to_lines, write_records
from reference.engines.batches import in_batches
from reference.engines.judge import Judge
from reference.engines.progress import with_progress
from reference.engines.run_folder import RunFolder, StageFolder
from reference.engines.student import Student
from reference.interfaces import Sampling
from reference.paper.pass_at_k import pass_at_k
from reference.records import Evaluated, Evaluation, Problem, Sampled
from reference.seeds import seed_of

K = 8


def evaluate(
    run: RunFolder,
    config: Config,
    name: str,
    checkpoint: Path,
    benchmarks: Mapping[str, Sequence[Problem]],
    student: Student,
    judge: Judge,
) -> None:
    """Evaluate a checkpoint under the name of the stage that made it; adds its lines to eval/results.jsonl.

    No checkpoint is chosen by it (ambiguity A10). Every problem counts: one with more than --data.max-prompt-tokens
    counts as wrong.
    """
    stage_name = f"eval/{name.replace('/', '-')}"
    if not run.wants(stage_name):
        return
    evaluated = " ".join(problem.id for problems in benchmarks.values() for problem in problems)
    inputs = {"checkpoint": checkpoint, "benchmarks": run.benchmarks_path, "prompts": run.prompts_path}
    reads = ("seed", "sampler", "vllm", "model", "data.max_prompt_tokens", "evaluation")
    stage = run.stage(stage_name, reads, {**inputs, "evaluated": evaluated})
    if stage.is_done:
        _collect(run)
        return
    student.sampler.load(checkpoint)
    results, timeouts = [], judge.num_timeouts
    for at, (benchmark, problems) in enumerate(benchmarks.items()):
        answers = _answer(stage, config, benchmark, problems, student, judge)
        counts = _sample(stage, config, benchmark, problems, student, judge) if at == 0 else []
        results.append(_summary(name, benchmark, answers, counts))
    stage.write("results.jsonl", to_lines(results))
    late = run.process.total({"answers": judge.num_timeouts - timeouts})["answers"]
    note = f"{late} answers were not compared in time and count as wrong" if late else ""
    stage.finish({f"% {result.benchmark}": f"{100 * result.accuracy:.1f}" for result in results}, note)
    _collect(run)


def _answer(
    stage: StageFolder, config: Config, benchmark: str, problems: Sequence[Problem], student: Student, judge: Judge
) -> list[Evaluated]:
    """One greedy response to each problem."""
    greedy = Sampling(0.0, 1.0, config.evaluation.max_new_tokens)
    share = student.sampler.share
    log = stage.log(f"{benchmark}.jsonl", Evaluated, share)
    batches = share.of(in_batches(problems, config.sampler_rows))
    for batch in with_progress(batches, len(batches), f"{stage.name} {benchmark}"):
        if all(problem.id in log for problem in batch):
            continue
        short = _short_enough(batch, config, student)
        responses = student.sampler.sample([student.prompt_ids(p) for p in short], [[0]] * len(short), greedy)
        texts = {problem.id: group[0].text for problem, group in zip(short, responses, strict=True)}
        log.add(_evaluated(problem, texts.get(problem.id, ""), judge) for problem in batch)
    return log.finish()


def _evaluated(problem: Problem, response: str, judge: Judge) -> Evaluated:
    judged = judge.judge(problem, response)
    return Evaluated(problem.id, response, judged.correct, judged.has_answer)


def _sample(
    stage: StageFolder, config: Config, benchmark: str, problems: Sequence[Problem], student: Student, judge: Judge
) -> list[Sampled]:
    """How many of each problem's samples are right; nothing where pass@8 is not asked for."""
    settings, n = config.evaluation, config.evaluation.pass_samples
    if n == 0:
        return []
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)
    share = student.sampler.share
    log = stage.log(f"{benchmark}.samples.jsonl", Sampled, share)
    batches = share.of(in_batches(problems, max(1, config.sampler_rows // n)))
    for batch in with_progress(batches, len(batches), f"{stage.name} {benchmark}, pass@{K}"):
        if all(problem.id in log for problem in batch):
            continue
        short = _short_enough(batch, config, student)
        seeds = [[seed_of(config.seed, stage.name, problem.id, i) for i in range(n)] for problem in short]
        groups = student.sampler.sample([student.prompt_ids(problem) for problem in short], seeds, sampling)
        right = {
            p.id: sum(judge.judge(p, o.text).correct for o in group) for p, group in zip(short, groups, strict=True)
        }
        log.add(Sampled(problem.id, n, right.get(problem.id, 0)) for problem in batch)
    return log.finish()


def _short_enough(problems: Sequence[Problem], config: Config, student: Student) -> list[Problem]:
    return [problem for problem in problems if len(student.prompt_ids(problem)) <= config.data.max_prompt_tokens]


def _summary(stage: str, benchmark: str, answers: Sequence[Evaluated], counts: Sequence[Sampled]) -> Evaluation:
    n = len(answers)
    pass_at_8 = [pass_at_k(count.num_samples, count.num_correct, K) for count in counts]
    return Evaluation(
        stage=stage,
        benchmark=benchmark,
        num_problems=n,
        num_correct=sum(answer.correct for answer in answers),
        accuracy=sum(answer.correct for answer in answers) / n,
        format_rate=sum(answer.has_answer for answer in answers) / n,
        pass_at_8=sum(pass_at_8) / n if pass_at_8 else None,
    )


def _collect(run: RunFolder) -> None:
    """eval/results.jsonl: the lines of all evaluations that are done, in the order of the run."""
    done = [name for name in run.plan if name.startswith("eval/") and run.is_done(name)]
    lines = [line for name in done for line in read_records(run.folder(name) / "results.jsonl", Evaluation)]
    run.process.on_main(lambda: write_records(run.path / "eval" / "results.jsonl", lines))
