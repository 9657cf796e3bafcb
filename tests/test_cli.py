"""The command line: every mistake is one sentence on stderr and exit code 2."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from reference import cli
from reference.cli import main, nearest, parse
from reference.config import TINY, check, flatten
from reference.connect import load_prompts
from reference.engines.artifacts import to_lines, write_records
from reference.engines.run_folder import StageFolder
from reference.offline import tiny_model
from reference.records import DifficultyGroup, Evaluation, Graded
from reference.stages.plan import stage_names

GOOD = '{"question": "What is 2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\\n#### 4"}\n'


class Recorded:
    """Stands in for `run_paper`: remembers that it was called, and with what."""

    def __init__(self):
        self.calls = []

    def __call__(self, run, config, world):
        self.calls.append((run, config, world))


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments, capsys):
    """The one sentence that the command is refused with; nothing was run and nothing was written."""
    recorded = Recorded()
    before = sorted(Path.cwd().rglob("*"))
    assert main(arguments, recorded) == 2
    assert recorded.calls == []
    assert sorted(Path.cwd().rglob("*")) == before
    error = capsys.readouterr().err
    assert error.startswith("run_paper: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


def test_no_argument_is_the_preset_tiny():
    preset, command = parse([])
    assert preset == "tiny" and command.config == TINY
    assert (command.out, command.stages, command.redo, command.dry_run) == ("", (), None, False)


def test_each_setting_can_be_overridden_by_its_name():
    _, command = parse(
        ["tiny", "--grpo.kl-coef", "0", "--sft.betas", "0.8", "0.99", "--data.limit", "7", "--seed", "3"]
    )
    changed = {name: value for name, value in flatten(command.config).items() if value != flatten(TINY)[name]}
    assert changed == {"grpo.kl_coef": 0.0, "sft.betas": (0.8, 0.99), "data.limit": 7, "seed": 3}


def test_stages_redo_and_out():
    _, command = parse(["tiny", "--stages", "1_difficulty", "iter1", "--redo", "3_bridge", "--out", "x", "--dry-run"])
    assert command.stages == ("1_difficulty", "iter1")
    assert (command.redo, command.out, command.dry_run) == ("3_bridge", "x", True)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--grpo.kl-coeff", "--grpo.kl-coef"),
        ("--grpo.cl-coef=1", "--grpo.kl-coef"),
        ("--data.limits", "--data.limit"),
        ("--redoo", "--redo"),
        ("--dryrun", "--dry-run"),
        ("--kl-coef", "--grpo.kl-coef"),
    ],
)
def test_an_unknown_setting_names_the_nearest(given, meant, in_folder, capsys):
    error = refused(["tiny", given, "0"], capsys)
    assert repr(given.partition("=")[0]) in error and repr(meant) in error


def test_an_unknown_preset_names_the_nearest(in_folder, capsys):
    error = refused(["tinny"], capsys)
    assert "'tinny'" in error and "'tiny'" in error


def test_nearest_always_finds_a_name():
    assert nearest("zzz", ["abc", "xyz"]) in ("abc", "xyz")


@pytest.mark.parametrize(
    "arguments", [["--grpo.lr", "fast"], ["--grpo.batch-size", "1.5"], ["--sft.betas", "0.9"], ["--seed"]]
)
def test_a_value_of_the_wrong_type_ends_with_code_2(arguments, in_folder, capsys):
    recorded = Recorded()
    with pytest.raises(SystemExit) as caught:
        main(["tiny", *arguments], recorded)
    assert caught.value.code == 2
    assert recorded.calls == [] and list(in_folder.iterdir()) == []
    assert arguments[0] in capsys.readouterr().err


def test_help_names_the_papers_tables(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"], Recorded())
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "Table 5" in shown and "Table 6" in shown
    for name in flatten(TINY):
        assert f"--{name.replace('_', '-')}" in shown


def test_a_dry_run_lists_all_stages_and_makes_nothing(in_folder, capsys):
    recorded = Recorded()
    assert main(["tiny", "--dry-run", "--data.limit", "20", "--data.test-limit", "5"], recorded) == 0
    assert recorded.calls == [] and list(in_folder.iterdir()) == []
    shown = capsys.readouterr().out
    listed = [line.split()[0] for line in shown.splitlines() if line and line.split()[0] in stage_names(TINY)]
    assert listed == stage_names(TINY)
    assert "20 problems" in shown and str(20 * TINY.difficulty.num_samples) in shown
    assert "25 problems" in shown and str(25 + 5 * TINY.evaluation.pass_samples) in shown  # pass@8 on the first of five
    assert "teacher calls" in shown and "MiB" in shown


def test_a_dry_run_shows_only_what_is_left(in_folder, capsys):
    def first_stage(run, config, world):
        stage = run.stage("1_difficulty", (), {})
        graded = [Graded(problem.id, 4, 0, 0, 0.0, DifficultyGroup.HARD) for problem in world.problems]
        stage.write("difficulty.jsonl", to_lines(graded))
        stage.finish({"problems": 3})

    main(["tiny", *SMALL], first_stage)
    before = sorted(in_folder.rglob("*"))

    def left(*options):
        capsys.readouterr()
        assert main(["tiny", *SMALL, "--dry-run", *options], Recorded()) == 0
        assert sorted(in_folder.rglob("*")) == before
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        return {line[0]: " ".join(line[1:]) for line in lines if line and line[0] in (*stage_names(TINY), "measured")}

    found = left()
    assert list(found) == [*(name for name in stage_names(TINY) if name != "1_difficulty"), "measured"]
    assert found["2_traces"].startswith("3 traces 3 ")  # all are hard; the paper's shares would make it 2
    assert found["measured"].startswith("in this run: difficulty groups; from the paper: traces of hard problems")
    again = left("--redo", "1_difficulty")
    assert list(again) == stage_names(TINY) and again["2_traces"].startswith("2 traces 2 ")
    assert list(left("--stages", "1_difficulty", "2_traces")) == ["2_traces", "measured"]
    assert "grpo.kl_coef" in refused(["tiny", *SMALL, "--dry-run", "--grpo.kl-coef", "0.5"], capsys)


@pytest.mark.parametrize("more", [(), ("--experiment", "all-zero", "--seeds", "1")])
def test_of_several_processes_the_first_alone_prints_the_plan(more, in_folder, capsys, monkeypatch):
    for rank, is_told in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert main(["tiny", *SMALL, "--dry-run", *more], Recorded()) == 0
        assert bool(capsys.readouterr().out) == is_told


@pytest.mark.parametrize("given", [("--problems", "0"), ("--steps", "0")])
def test_a_base_of_nothing_is_refused_before_it_writes(given, in_folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tiny_model", "--out", "base", *given])
    with pytest.raises(SystemExit) as caught:
        tiny_model.main()
    assert caught.value.code == 2 and "must be at least" in capsys.readouterr().err
    assert list(in_folder.iterdir()) == []


def test_a_dry_run_shows_a_shorter_plan_for_fewer_iterations(in_folder, capsys):
    main(["tiny", "--dry-run", "--iterations", "1", "--data.limit", "20", "--data.test-limit", "5"], Recorded())
    shown = capsys.readouterr().out
    assert "iter1/3_grpo" in shown and "iter2" not in shown and "4_recycle" not in shown


SMALL = ["--data.limit", "3", "--data.test-limit", "2", "--out", "run"]


def test_a_run_gets_its_problems_its_benchmarks_and_its_folder(in_folder, capsys):
    recorded = Recorded()
    assert main(["tiny", *SMALL], recorded) == 0
    run, config, world = recorded.calls[0]
    assert run.path == Path("run") and config.data.limit == 3
    assert len(world.problems) == 3 and world.num_too_long == 0
    assert [len(problems) for problems in world.benchmarks.values()] == [2] * 5
    assert list(world.benchmarks)[0] == "test"
    assert len((in_folder / "run" / "problems.jsonl").read_text().splitlines()) == 3
    assert json.loads((in_folder / "run" / "config.json").read_text())["data.limit"] == 3
    assert json.loads((in_folder / "run" / "environment.json").read_text())["torch"]
    assert capsys.readouterr().out.startswith("tiny in run on cpu: 3 training problems")


def test_a_changed_setting_is_refused_with_both_values(in_folder, capsys):
    main(["tiny", *SMALL], Recorded())
    capsys.readouterr()
    error = refused(["tiny", *SMALL, "--grpo.kl-coef", "0.5"], capsys)
    assert "grpo.kl_coef" in error and "0.001" in error and "0.5" in error and "--redo" in error


def test_redo_frees_a_setting_that_no_kept_stage_has_read(in_folder, capsys):
    """`--redo iter1/3_grpo` may come with another kl_coef, as long as only later stages read it."""

    def difficulty_only(run, config, world):
        stage = run.stage("1_difficulty", ("seed", "difficulty"), {})
        if not stage.is_done:
            stage.finish({"problems": 3})

    assert main(["tiny", *SMALL], difficulty_only) == 0
    redo = ["tiny", *SMALL, "--redo", "iter1/3_grpo"]
    assert main([*redo, "--grpo.kl-coef", "0.5"], Recorded()) == 0
    capsys.readouterr()
    error = refused([*redo, "--grpo.kl-coef", "0.5", "--difficulty.num-samples", "4"], capsys)
    assert "difficulty.num_samples" in error and "16" in error and "4" in error
    assert json.loads(Path("run/config.json").read_text())["grpo.kl_coef"] == 0.5


def test_an_unknown_stage_lists_those_that_there_are(in_folder, capsys):
    for option in ("--stages", "--redo"):
        error = refused(["tiny", *SMALL, option, "2_tracez"], capsys)
        assert "'2_tracez'" in error and "2_traces" in error and "iter2/3_grpo" in error


def test_only_the_stages_that_were_asked_for_are_run(in_folder, capsys):
    ran = []

    def two_stages(run, config, world):
        for name in ("1_difficulty", "2_traces"):
            stage = run.stage(name, (), {})
            assert isinstance(stage, StageFolder)
            ran.append(name)
            stage.finish({"items": 1})

    assert main(["tiny", *SMALL, "--stages", "1_difficulty"], two_stages) == 0
    assert ran == ["1_difficulty"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (GOOD + "not json\n", "line 2"),
        (GOOD + GOOD + '{"question": "?"}\n', "line 3"),
        ('{"question": "What?", "answer": "four"}\n', "line 1"),
        (GOOD + '{"question": "", "answer": "#### 4"}\n', "line 2"),
        (GOOD + '["question", "answer"]\n', "line 2"),
        (GOOD + '{"question": "What?", "answer": 4}\n', "line 2"),
        ("", "holds no problems"),
    ],
)
def test_a_bad_line_of_data_is_named(lines, says, in_folder, capsys):
    (in_folder / "data.jsonl").write_text(lines)
    error = refused(["tiny", "--data.train", "data.jsonl", "--out", "run"], capsys)
    assert "data.jsonl" in error and says in error


def test_bytes_that_are_no_text_are_named(in_folder, capsys):
    (in_folder / "data.jsonl").write_bytes(GOOD.encode() + b'{"question": "\xff", "answer": "#### 4"}\n')
    assert "data.jsonl" in refused(["tiny", "--data.train", "data.jsonl", "--out", "run"], capsys)


def test_every_kind_of_line_break_inside_a_question_is_kept(in_folder):
    """JSON may hold U+2028 or U+0085 as they are: only a newline ends a line of JSONL."""
    question = "What is\u20282 +\x85 2?\x1c"
    line = json.dumps({"question": question, "answer": "#### 4"}, ensure_ascii=False).replace("\\u001c", "")
    (in_folder / "data.jsonl").write_text(line + "\n", encoding="utf-8")
    recorded = Recorded()
    assert main(["tiny", "--data.train", "data.jsonl", "--data.test-limit", "2", "--out", "run"], recorded) == 0
    assert recorded.calls[0][2].problems[0].question == question.replace("\x1c", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data.train", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--data.train", ""], "--data.train"),
        (["--data.tests", "nowhere.jsonl"], "NAME=PATH"),
        (["--data.tests", "gsm8k=nowhere.jsonl"], "nowhere.jsonl"),
        (["--data.tests", "results=nowhere.jsonl"], "NAME=PATH"),
        (["--data.tests", "../up=nowhere.jsonl"], "NAME=PATH"),
        (["--data.tests", "=nowhere.jsonl"], "NAME=PATH"),
        (["--data.tests", "offline", "offline"], "twice"),
        (["--model.path", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--data.prompts", "nowhere"], "nowhere"),
        (["--data.max-prompt-tokens", "5"], "--data.max-prompt-tokens"),
        (["--grpo.mini-batch-size", "17"], "--grpo.mini-batch-size"),
        (["--grpo.num-rollouts", "1"], "--grpo.num-rollouts"),
        (["--evaluation.pass-samples", "4"], "--evaluation.pass-samples"),
        (["--iterations", "0"], "--iterations"),
        (["--evaluation.max-new-tokens", "2000"], "--evaluation.max-new-tokens"),
        (["--grpo.max-new-tokens", "2000"], "--grpo.max-new-tokens"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(arguments, says, in_folder, capsys):
    assert says in refused(["tiny", *SMALL, *arguments], capsys)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data.limit", "-3"),  # a slice would take all but the last three
        ("data.limit", "0"),
        ("data.test-limit", "0"),
        ("difficulty.num-samples", "0"),
        ("difficulty.max-new-tokens", "0"),
        ("sft.batch-size", "0"),
        ("sft.save-every", "0"),
        ("grpo.mini-batch-size", "0"),
        ("grpo.save-every", "0"),
        ("grpo.max-new-tokens", "0"),
        ("sampler-rows", "0"),
    ],
)
def test_a_size_that_is_not_positive_is_said_before_anything_runs(setting, value, in_folder, capsys):
    assert f"--{setting}" in refused(["tiny", *SMALL, f"--{setting}", value], capsys)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("recycling.weights", ["1", "1", "2"]),
        ("recycling.weights", ["4", "-1", "0"]),
        ("recycling.tau-length", ["0"]),
        ("recycling.tau-steps", ["-1"]),
        ("bridge.tau-importance", ["-0.5"]),
        ("bridge.tau-difficulty", ["nan"]),
        ("sft.warmup-ratio", ["1.5"]),
        ("sft.min-lr-ratio", ["-0.1"]),
        ("sft.betas", ["0.9", "1"]),
        ("sft.lr", ["inf"]),
        ("sft.max-grad-norm", ["0"]),
        ("grpo.clip-eps", ["0"]),
        ("grpo.kl-coef", ["-0.001"]),
        ("grpo.advantage-eps", ["0"]),
        ("grpo.weight-decay", ["-1"]),
        ("grpo.top-p", ["0"]),
        ("evaluation.temperature", ["0"]),
        ("evaluation.pass-samples", ["-1"]),
        ("seed", ["-1"]),
    ],
)
def test_a_number_that_cannot_be_is_said_before_anything_runs(setting, values, in_folder, capsys):
    assert f"--{setting}" in refused(["tiny", *SMALL, f"--{setting}", *values], capsys)


def test_every_number_has_a_rule():
    """Each setting that is a number refuses -1 and NaN: none is checked by accident of its name only."""
    for name, value in flatten(TINY).items():
        if (
            isinstance(value, tuple)
            and value
            and not isinstance(value[0], str)
            or isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            for bad in (-1, float("nan")):
                section, _, last = name.rpartition(".")
                broken = tuple(bad for _ in value) if isinstance(value, tuple) else bad
                inner = replace(getattr(TINY, section), **{last: broken}) if section else broken
                with pytest.raises(ValueError, match="--" + name.replace("_", "-")):
                    check(replace(TINY, **{section or last: inner}))


def test_a_whole_number_may_stand_for_a_float():
    """From Python, not from the command line, a coefficient may be the int 0."""
    check(replace(TINY, grpo=replace(TINY.grpo, kl_coef=0), sft=replace(TINY.sft, warmup_ratio=0)))


def test_half_a_sign_in_the_data_is_named(in_folder, capsys):
    lines = GOOD + '{"question": "What is \\ud83d?", "answer": "#### 4"}\n'
    (in_folder / "data.jsonl").write_text(lines)
    assert "line 2" in refused(["tiny", "--data.train", "data.jsonl", "--out", "run"], capsys)


def test_a_bad_prompt_template_names_what_it_lacks(in_folder, capsys):
    (in_folder / "prompts").mkdir()
    (in_folder / "prompts" / "student.txt").write_text("Solve it.")
    error = refused(["tiny", *SMALL, "--data.prompts", "prompts"], capsys)
    assert "'student'" in error and "{question}" in error
    (in_folder / "prompts" / "student.txt").rename(in_folder / "prompts" / "studend.txt")
    assert "'student'" in refused(["tiny", *SMALL, "--data.prompts", "prompts"], capsys)


def test_a_good_prompt_template_reaches_the_student(in_folder):
    (in_folder / "prompts").mkdir()
    (in_folder / "prompts" / "student.txt").write_text("Now then: {question}")
    recorded = Recorded()
    assert main(["tiny", *SMALL, "--data.prompts", "prompts"], recorded) == 0
    world = recorded.calls[0][2]
    read = world.student.chat.tokenizer.decode(world.student.prompt_ids(world.problems[0]))
    assert f"Now then: {world.problems[0].question}" in read


def test_problems_that_are_too_long_are_left_out_and_counted(in_folder, capsys):
    long = json.dumps({"question": "many words " * 500, "answer": "#### 4"}) + "\n"
    (in_folder / "data.jsonl").write_text(GOOD + long + GOOD)
    recorded = Recorded()
    main(["tiny", "--data.train", "data.jsonl", "--data.test-limit", "2", "--out", "run"], recorded)
    world = recorded.calls[0][2]
    assert [problem.id for problem in world.problems] == ["data-00000", "data-00002"] and world.num_too_long == 1
    assert "2 training problems, 1 left out" in capsys.readouterr().out


def test_an_interruption_ends_with_code_130_and_a_full_disk_with_2(in_folder, capsys):
    def interrupted(run, config, world):
        raise KeyboardInterrupt

    def full(run, config, world):
        raise OSError("No space left on device")

    assert main(["tiny", *SMALL], interrupted) == 130
    assert capsys.readouterr().err.endswith("run the same command again\n")
    assert main(["tiny", *SMALL, "--redo", "2_traces"], interrupted) == 130
    assert capsys.readouterr().err.endswith("run the same command again, without --redo\n")
    assert main(["tiny", *SMALL], full) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_the_table_is_there_where_the_report_cannot_be_written(in_folder, capsys, monkeypatch):
    def evaluated(run, config, world):
        write_records(run.path / "eval" / "results.jsonl", [Evaluation("base", "test", 4, 1, 0.25, 1.0)])

    def damaged(path):
        raise ValueError("calibration.json is damaged")

    monkeypatch.setattr(cli, "write_report", damaged)
    assert main(["tiny", *SMALL], evaluated) == 2
    said = capsys.readouterr()
    assert "\nbase  " in said.out and said.err == "run_paper: calibration.json is damaged\n"


def test_our_own_mistakes_keep_their_traceback(in_folder):
    def broken(run, config, world):
        raise AssertionError("ours")

    with pytest.raises(AssertionError):
        main(["tiny", *SMALL], broken)


def test_the_device_needs_of_a_model_that_is_not_here_yet_are_left_open():
    config = replace(TINY, model=replace(TINY.model, path="owner/another-model"))
    assert "is not in a local folder" in cli.device_needs(config)


def test_without_vllm_the_sampler_says_how_to_get_it(in_folder, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else find(name))
    error = refused(["tiny", *SMALL, "--sampler", "vllm", "--out", "run"], capsys)
    assert "pip install" in error and "--sampler hf" in error


def test_a_tensor_parallel_size_that_does_not_fit_is_refused_before_anything_is_loaded(in_folder, capsys, monkeypatch):
    monkeypatch.setattr("reference.connect.check_installed", lambda: None)
    error = refused(["tiny", *SMALL, "--sampler", "vllm", "--vllm.tensor-parallel", "4", "--out", "run"], capsys)
    assert "--vllm.tensor-parallel 4" in error and "take one of 1" in error


def test_a_template_that_cannot_be_read_is_refused_by_the_dry_run_too(in_folder, capsys):
    (in_folder / "prompts").mkdir()
    (in_folder / "prompts" / "student.txt").write_bytes(b"\xff{question}")
    for more in ([], ["--dry-run"]):
        error = refused(["tiny", *SMALL, "--data.prompts", "prompts", "--out", "run", *more], capsys)
        assert "student.txt" in error and "UTF-8" in error


def test_a_byte_order_mark_is_no_part_of_a_template(in_folder):
    (in_folder / "solve.txt").write_bytes(b"\xef\xbb\xbfSolve {question}")
    assert load_prompts(str(in_folder)).solve == "Solve {question}"


def test_a_model_without_a_name_is_refused(in_folder, capsys):
    assert "--model.path" in refused(["tiny", *SMALL, "--model.path", "", "--out", "run"], capsys)


def test_more_processes_than_the_launch_has_are_refused(in_folder, capsys):
    assert "--processes is 2, and the launch has 1" in refused(["tiny", "--processes", "2", "--out", "run"], capsys)
    assert main(["tiny", *SMALL, "--processes", "2", "--dry-run"], Recorded()) == 0  # planning needs no launch
