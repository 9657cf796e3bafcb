"""The numbers that the pages quote are those of the code, of the committed results and of the run in the README.

What a page says of its own tables and blocks is held by that page's file (`tests/test_*_page.py` and their like).
"""

import json
import re
from dataclasses import fields
from functools import cache
from inspect import signature
from math import ceil, prod, ulp
from pathlib import Path
from statistics import mean, stdev

import pytest
from safetensors import safe_open
from transformers import AutoConfig

from reference.config import PAPERS_DATA, TINY, Config, flatten
from reference.connect import CHARACTERS_PER_TOKEN, benchmarks, training_problems
from reference.engines.benchmarks import DATA_SETS
from reference.engines.math_verifier import MathVerifier
from reference.experiments.claims import claims
from reference.experiments.compositions import motivation_plan
from reference.experiments.results import ClaimLine, Line
from reference.experiments.statistics import DRAWS, MARGIN
from reference.experiments.tables import claims_table, read_csv, table
from reference.experiments.variants import experiments
from reference.interfaces import Teacher
from reference.offline import corpus, tiny_model
from reference.offline.symbolic_teacher import MAX_POINTS, SHARE_WITH_CHECK
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.paper import verl
from reference.paper.bridge import MIN_SENTENCE
from reference.paper.curricula import CURRICULA
from reference.paper.recycling import MAX_EXCERPT, MIN_LIKENESS
from reference.paper.reported import LLAMA, QWEN, TABLE_8
from reference.paper.sft import cosine_schedule
from reference.records import Diagnosis, Evaluation, to_json
from reference.stages.report import final_table
from reference.stages.train_grpo import LARGE_GAP

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAPER = Config()


@cache
def page(name):
    """A page in one line."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


@cache
def lines_of(name):
    return read_csv(RESULTS / f"{name}.csv", Line)


def percent(name, label, metric="average accuracy"):
    (line,) = [line for line in lines_of(name) if (line.label, line.metric) == (label, metric)]
    return line.percent


def by_seed(name, label, metric):
    (line,) = [line for line in lines_of(name) if (line.label, line.metric) == (label, metric)]
    return [float(number) for number in line.by_seed.split()]


# README: the run that it shows

SHOWN = re.search(r"^tiny in runs/tiny on cpu.*?(?=^```$)", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)[0]
COUNTS = dict(re.findall(r"^(\S+) +(\d.*) · [\d.]+ s$", SHOWN, re.MULTILINE))
FIRST_TABLE, SECOND_TABLE = SHOWN.split("\n\n")[1:3]


def counts(stage):
    """`98 examples, 13 steps` as a mapping from what is counted to how many there are."""
    return {
        what: int(number) for number, what in re.findall(r"(?:^|, )(\d+) ([a-z][a-z -]*?)(?=,|$| at)", COUNTS[stage])
    }


def shown_evaluations():
    """The run's evaluations as its second table has them, pass@8 from the first one."""
    head, *rows = SECOND_TABLE.splitlines()
    names = re.findall(r"(\w+) \(n (\d+)\)", head)
    pass_at_8 = {line.split()[0]: float(re.split(r" {2,}", line)[3]) for line in FIRST_TABLE.splitlines()[1:]}
    for row in rows:
        stage, *cells = re.findall(r"^\S+|[\d.]+ \| [\d.]+", row)
        for (name, size), cell in zip(names, cells, strict=True):
            accuracy, readable = (float(number) / 100 for number in cell.split(" | "))
            sampled = pass_at_8[stage] / 100 if name == names[0][0] else None
            yield Evaluation(stage, name, int(size), round(accuracy * int(size)), accuracy, readable, sampled)


def test_the_tables_of_the_readme_are_printed_from_one_anothers_numbers():
    """Intervals, averages, format rates and the paper's columns follow from the accuracies of each benchmark."""
    printed = re.sub(r" +$", "", final_table(list(shown_evaluations())), flags=re.MULTILINE)
    assert printed.split("\n\n")[:2] == [FIRST_TABLE, SECOND_TABLE]


def test_the_lines_of_the_readme_agree_with_its_tables():
    for stage in dict.fromkeys(one.stage for one in shown_evaluations()):
        shown = {one.benchmark: 100 * one.accuracy for one in shown_evaluations() if one.stage == stage}
        line = ", ".join(f"{accuracy:.1f} % {name}" for name, accuracy in shown.items())
        assert COUNTS[f"eval/{stage.replace('/', '-')}"] == line


def test_the_counts_of_the_readme_follow_from_one_another():
    groups, bridge = counts("1_difficulty"), counts("3_bridge")
    assert groups["simple"] + groups["medium"] + groups["hard"] == groups["problems"] == TINY.data.limit == 320
    assert counts("2_traces")["traces"] == groups["medium"] + groups["hard"]
    assert bridge["hard traces"] == groups["hard"]
    first = counts("iter1/1_sft/1_medium")["examples"], counts("iter1/1_sft/2_bridge")["examples"]
    assert first == (groups["medium"], bridge["hard traces"] + bridge["local samples"])
    recycled = counts("iter1/4_recycle")
    assert recycled["failed"] == counts("iter1/2_filter")["all-zero"]
    assert recycled["examples"] == 3 * recycled["diagnosed"]
    assert counts("iter2/1_sft/union")["examples"] == sum(first) + recycled["examples"]
    for phase in (one for one in COUNTS if "/1_sft/" in one):
        assert counts(phase)["steps"] == ceil(counts(phase)["examples"] / TINY.sft.batch_size)
    for turn in (1, 2):
        found, grpo = counts(f"iter{turn}/2_filter"), counts(f"iter{turn}/3_grpo")
        assert found["all-zero"] + found["mixed"] + found["all-one"] == found["problems"] == groups["problems"]
        assert grpo["problems"] == found["mixed"] + found["all-one"]
        assert grpo["steps"] == ceil(grpo["problems"] / TINY.grpo.batch_size)


SEEDS_ROWS = {
    "base": "Base",
    "iter1/1_sft/1_medium": "SFT-Medium",
    "iter1/1_sft/2_bridge": "SFT-Medium -> Bridged-Hard",
    "iter1/3_grpo": "SFT-Medium -> Bridged-Hard + GRPO",
    "iter2/1_sft/union": "SFT-Medium -> Bridged-Hard + GRPO + Recycling",
    "iter2/3_grpo": "Full Model",
}


@pytest.mark.parametrize("stage", SEEDS_ROWS)
def test_the_table_of_three_seeds_is_that_of_the_committed_results(stage):
    cells = []
    for metric in ("test", "average accuracy", "pass@8", "format"):
        values = by_seed("components", SEEDS_ROWS[stage], metric)
        cells.append(f"{mean(values):.1f} ({stdev(values):.1f})")
    assert f"| {stage} | {' | '.join(cells)} | 100 |" in page("README.md")


def test_what_the_readme_says_of_its_runs():
    bridge = counts("iter1/1_sft/2_bridge")
    readable = {(e.stage, e.benchmark): e.format_rate for e in shown_evaluations()}
    silent = round(100 - 100 * readable["iter1/1_sft/2_bridge", "test"])
    base, medium, bridged, grpo, _, full = (percent("components", label, "test") for label in SEEDS_ROWS.values())
    old = percent("readings", "processed+own_turn+phases (the default of version 0.1), after two iterations", "test")
    for sentence in (
        f"Of the {bridge['examples']} samples in the run above {counts('3_bridge')['local samples']} are single steps",
        f"in the run above {silent} of 100 responses have none",
        f"the same three runs ended at {old:.1f}",
    ):
        assert sentence in page("README.md")
    assert round(medium - base) == 10 and "gains ten points over the base" in page("README.md")
    passed = [percent("components", SEEDS_ROWS[stage], "pass@8") for stage in ("base", "iter1/1_sft/2_bridge")]
    assert bridged < base and passed[0] < passed[1]
    assert "falls below the base in accuracy, though not in pass@8" in page("README.md")
    assert abs(grpo - medium) < 1 and "GRPO wins all of it back" in page("README.md")
    assert base < full < grpo and "ends above the base and below the first one's" in page("README.md")
    for benchmark, share in (("ood_operations", 0.2), ("ood_logic", 0.1)):
        solved = [percent("components", label, benchmark) for label in ("Base", "SFT-Medium")]
        assert max(solved) == pytest.approx(100 * share, abs=2.5)


# docs/results.md


def of_claim(claim, name="claims"):
    (line,) = [line for line in read_csv(RESULTS / f"{name}.csv", ClaimLine) if line.claim == claim]
    return line


def moved(claim):
    one = of_claim(claim)
    return f"{one.difference:+.1f} ({one.low:+.1f} to {one.high:+.1f})"


def test_what_the_page_of_results_says_under_its_tables():
    rows = list(SEEDS_ROWS.values())[2:]
    medium, base = percent("components", "SFT-Medium"), percent("components", "Base")
    bridged, grpo, recycled, full = (percent("components", label) for label in rows)
    raw = of_claim("Full Bridge is above Raw Hard, after SFT")
    bridges = ("w/o Expand", "w/o Localize", "w/o Comp./Drop", "Raw Hard")
    later = [of_claim(f"Full Bridge is above {name}, after two iterations") for name in bridges]
    first, second, third, fourth = (percent("iterations", f"Iteration {n}", "all-zero problems") for n in (1, 2, 3, 4))
    falling = [percent("iterations", f"Iteration {n}") for n in (1, 2, 3, 4)]
    alone = of_claim("The method is above GRPO on what the base solves, for as many steps")
    local = of_claim("Bridged traces with their local samples are above the local samples alone")
    text = page("docs/results.md")
    for sentence in (
        f"The base stands at {base:.1f};",
        f"The Bridge's phase takes {medium - bridged:.0f} points, GRPO gives {grpo - bridged:.0f} back",
        f"what was recycled takes {grpo - recycled:.0f} and GRPO gives {full - recycled:.0f} back",
        f"The whole method ends above the base by {moved('Full Model is above Base')} points",
        f"its pass@8 differs by {moved('Full Bridge is above Raw Hard, after SFT')}, not quite told from zero",
        f"average accuracy by {moved('SFT-Medium -> Bridged-Hard is above SFT-Medium -> Raw-Hard')}. After two",
        f"within {max(abs(one.difference) for one in later):.1f} points of average accuracy of each of them",
        f"{falling[0]:.1f}, {falling[1]:.1f}, {falling[2]:.1f}, {falling[3]:.1f}. No step of it alone",
        f"falls by {first - second:.0f} points from the first filter to the second",
        f"already there ({moved('Recycling is above as many steps without it')})",
        f"for as many steps, is {-alone.difference:.1f} points above the method",
        f"({moved('The method is above ordinary GRPO')}). Bridged traces together with their local samples are "
        f"{local.difference:.0f} points of pass@8 above the local samples alone",
    ):
        assert sentence in text, sentence
    assert falling == sorted(falling, reverse=True) and abs(third - second) < 3 and abs(fourth - second) < 3
    iterations = [one for one in read_csv(RESULTS / "claims.csv", ClaimLine) if one.experiment == "iterations"]
    assert {one.verdict for one in iterations if one.metric == "average accuracy"} <= {"undecided", "not seen"}
    assert {one.verdict for one in later} == {"undecided"} and raw.verdict == "not seen"
    after = [of_claim(f"Full Bridge is above {name}, after SFT").verdict for name in bridges[:3]]
    assert set(after) == {"undecided"} and of_claim("Full Model is above Base").verdict == "undecided"
    assert of_claim("The method is above ordinary GRPO").verdict == "undecided"


def test_grpo_on_everything_takes_more_steps():
    size, batch = TINY.data.limit, TINY.grpo.batch_size
    left = [size - round(size * share / 100) for share in by_seed("iterations", "Iteration 1", "all-zero problems")]
    steps = sorted({ceil(problems / batch) for problems in left})
    everything = of_claim("Excluding all-zero problems is above GRPO on everything")
    assert everything.verdict == "undecided"
    sentence = f"GRPO on everything ({everything.difference:+.1f} points), and it takes {steps[0]} or {steps[-1]} steps"
    assert f"{sentence} where the other takes {ceil(size / batch)}" in page("docs/results.md")


def test_what_the_page_of_results_began_with():
    text = page("docs/results.md")
    sizes = {line.num_problems for line in lines_of("components") if line.metric == "test"}
    later = [one for one in claims(TINY) if one.experiment == "motivation" and "Medium -> Hard" not in one.claim]
    assert "Seven experiments, five of the paper and two of our own" in text and len(experiments(TINY)) == 7
    assert "320 generated training problems, five benchmarks of 100 problems" in text and sizes == {100}
    assert "the four of Appendix A.2" in text and len(later) == 4


def test_three_base_models():
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    judged = read_csv(RESULTS / "three-bases" / "claims.csv", ClaimLine)
    components = read_csv(RESULTS / "three-bases" / "components.csv", Line)
    assert claims_table(judged) in text
    assert table("components", experiments(TINY)["components"], components).split("\n\n", 1)[1] in text
    other = [one.claim for one in judged if one.verdict != of_claim(one.claim).verdict]
    assert other == [
        "SFT-Medium -> Bridged-Hard + GRPO is above SFT-Medium -> Bridged-Hard",
        "Full Model is above SFT-Medium -> Bridged-Hard + GRPO + Recycling",
    ]
    assert f"Of {len(judged)} verdicts {len(judged) - len(other)} are those of the one base" in page("docs/results.md")
    wider = [one.high - one.low - (of_claim(one.claim).high - of_claim(one.claim).low) for one in judged]
    assert mean(wider) > 0 and "are wider on average" in page("docs/results.md")
    found = {line.label: line.percent for line in components if line.metric == "test"}
    before, after = found["SFT-Medium"], found["SFT-Medium -> Bridged-Hard"]
    raw = found["SFT-Medium -> Raw-Hard"]
    assert f"from {before:.1f} to {after:.1f} on `test`; raw hard traces end at {raw:.1f}." in page("docs/results.md")


# The other pages: what a constant, a default or a file says


def parameters_of_the_base():
    with safe_open(BASE_CHECKPOINT / "model.safetensors", "pt") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


WORDS = "no one two three four five six seven eight nine ten".split()


def sentences():
    """(page, sentence), each with the number that the code has."""
    base = AutoConfig.from_pretrained(BASE_CHECKPOINT)
    usual, localized, expanded, bare = (f"{100 * share:.0f}%" for share in corpus.STYLE_SHARES)
    sizes = {name: data.hub_size for name, data in DATA_SETS.items()}
    trained = [name for name in motivation_plan(TINY) if name.count("/") == 2]
    verbs = [name for name in vars(Teacher) if not name.startswith("_") and name != "concurrency"]
    million = parameters_of_the_base() / 1e6
    lr_sft, lr_grpo = TINY.sft.lr / PAPER.sft.lr, TINY.grpo.lr / PAPER.grpo.lr
    attempts = PAPER.grpo.batch_size, PAPER.grpo.mini_batch_size
    seconds = signature(MathVerifier).parameters["seconds"].default
    quoted = {
        "README.md": [
            f"{TINY.data.limit} generated word problems, a base model of {million:.1f} million parameters",
            f"the {WORDS[len(DATA_SETS)]} data sets with a verifier",
            f"There are {WORDS[len(experiments(TINY))]} experiments",
        ],
        "CONTRIBUTING.md": [
            f"the {WORDS[len(verbs)]} verbs of",
            f"has the paper's {WORDS[len(PAPERS_DATA.tests)]} and no others",
        ],
        "docs/results.md": [f"a base model of {million:.1f} million parameters, {TINY.data.limit} generated"],
        "docs/offline_world.md": [
            f"{base.num_hidden_layers} layers, {base.hidden_size} wide, {base.num_attention_heads} heads over "
            f"{base.num_key_value_heads} key-value head, {base.vocab_size} words",
            f"{parameters_of_the_base():,} parameters, {4 * million:.1f} MB in float32",
            f"{usual} in the teacher's usual form, {localized} with every step localized, {expanded} with every step "
            f"expanded, {bare} as bare lines. Each calculation goes wrong with probability {corpus.SLIP_RATE} ",
            f"takes {tiny_model.STEPS:,} steps of {tiny_model.BATCH_SIZE} problems, the first "
            f"{tiny_model.FIRST_STEPS:,} of them on problems of one or {WORDS[tiny_model.FIRST_OPERATIONS]} operations",
            f"in {WORDS[round(3 * SHARE_WITH_CHECK)]} of three traces a check",
            f"{MAX_POINTS} points are 1.0",
            f"a model of {million:.1f} million parameters takes larger steps ({lr_sft:.0f} times in SFT, {lr_grpo:.0f} "
            "times in GRPO)",
            f"{TINY.data.limit} training problems with {TINY.difficulty.num_samples} samples each for difficulty",
        ],
        "docs/experiments.md": [
            f"resampled with replacement, {DRAWS:,} times",
            f"its upper end is below {WORDS[round(100 * MARGIN)]} percentage point",
            f"at {WORDS[len(TINY.motivation.budgets)]} budgets of supervised tokens; pass@8 from "
            f"{TINY.motivation.num_samples} samples",
            f"{len(trained)} SFTs for {len(CURRICULA) * len(TINY.motivation.budgets)} models",
        ],
        "docs/metrics.md": [
            f"{sizes['gsm8k_platinum']} for GSM8K-Platinum, {sizes['svamp']} for SVAMP, "
            f"{sizes['math500']} for MATH500, {sizes['logiqa']} for LogiQA",
            f"above {LARGE_GAP} ([`LARGE_GAP`]",
            f"{attempts[0]} / {attempts[1]} = {attempts[0] // attempts[1]} with Table 6",
        ],
        "docs/reading_guide.md": [
            f"| {PAPER.difficulty.num_samples} | `num_samples` of [`DifficultyConfig`]",
            f"| {PAPER.grpo.num_rollouts} | `num_rollouts` of [`GRPOConfig`]",
            f"| {PAPER.bridge.tau_importance} each | `tau_importance` and `tau_jumpiness`",
            f"| {PAPER.grpo.advantage_eps:.0e} | `advantage_eps`".replace("e-0", "e-"),
            f"| {PAPER.grpo.clip_eps} | `clip_eps`",
            f"| {PAPER.grpo.kl_coef} | `kl_coef`",
            f"| {PAPER.recycling.weights[0]:.0f} each, sum {sum(PAPER.recycling.weights):.0f} | `weights`",
            f"text; the first at most {MAX_EXCERPT} characters",
            f"| {WORDS[len(fields(Diagnosis))]} texts |",
        ],
        "docs/bridge_by_hand.md": [
            f"on the teacher's hard traces, {TABLE_8[LLAMA].mean} for Llama3.2-1B (Table 8",
            f"Qwen's {TABLE_8[QWEN].mean} (Table 8)",
        ],
        "docs/ambiguities.md": [
            f"the last {verl.LAST_CHARACTERS} characters",
            f"clamps $\\delta$ to ±{verl.LOG_RATIO_LIMIT:.0f} and the value to ±{verl.KL_LIMIT:.0f}",
            f"bounds the term at ratio {verl.SECOND_CLIP:.0f} where the advantage is negative",
            f"clamps the ratio's logarithm to ±{verl.LOG_RATIO_LIMIT:.0f}",
            f"a difflib ratio above {MIN_LIKENESS}",
            f"a process that may take {WORDS[round(seconds)]} seconds of the CPU for an answer",
        ],
        "docs/mutation.md": [f"sentence of {MIN_SENTENCE} characters", f"their spacing there is {ulp(3.0):.1e}"],
        "docs/running.md": [f"A token of a question is {WORDS[CHARACTERS_PER_TOKEN]} characters"],
    }
    return [(name, sentence) for name, of_page in quoted.items() for sentence in of_page]


@pytest.mark.parametrize(("name", "sentence"), sentences())
def test_a_page_quotes_the_codes_number(name, sentence):
    assert sentence in page(name)


def test_short_phases_begin_with_the_whole_rate():
    """`in phases of fewer than ten steps`, A30 and docs/metrics.md: a fifth of them is less than two."""
    first = [cosine_schedule(1, steps, PAPER.sft.warmup_ratio, PAPER.sft.min_lr_ratio) for steps in range(1, 11)]
    assert first[:-1] == [1.0] * 9 and first[-1] == 0.5


def test_the_entries_of_each_kind_are_all_of_them():
    """The paragraph that sorts the entries of docs/ambiguities.md names each once."""
    text = page("docs/ambiguities.md")
    sorted_out = text[text.index("A1 to A10") : text.index("The table at the end")]
    named = []
    for start, end in re.findall(r"A(\d+)(?: to A(\d+))?", sorted_out):
        named += range(int(start), int(end or start) + 1)
    headings = re.findall(r"^## A(\d+)\.", (ROOT / "docs" / "ambiguities.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == [int(number) for number in headings]


ARTIFACTS = (ROOT / "docs" / "artifacts.md").read_text("utf-8")
JSON_LINES = re.findall(r"^\{.*\}$", ARTIFACTS, re.MULTILINE)


def test_the_problems_among_the_artifacts_are_those_of_the_world():
    known = [*training_problems(TINY), *(one for problems in benchmarks(TINY).values() for one in problems)]
    lines = {to_json(one) for one in known}
    shown = [line for line in JSON_LINES if '"question"' in line]
    assert len(shown) == 2 and set(shown) <= lines


def test_the_settings_among_the_artifacts_are_the_presets():
    shown = re.search(r'^\{"seed": .*\}$', ARTIFACTS, re.MULTILINE)[0]
    settings = flatten(TINY)
    found = re.findall(r'"([\w.]+)": ("[^"]*"|[\d.]+)', shown)
    assert len(found) == 5
    assert {name: json.loads(value) for name, value in found} == {name: settings[name] for name, _ in found}


def test_the_records_among_the_artifacts_are_of_the_readmes_run():
    """What follows from the README's lines, and what must hold within a record."""
    records = [json.loads(line) for line in JSON_LINES if "…" not in line]
    (receipt,) = [record for record in records if record.get("stage") == "2_traces"]
    assert receipt["counts"] == counts("2_traces")
    (evaluation,) = [record for record in records if "benchmark" in record]
    (same,) = [
        e for e in shown_evaluations() if (e.stage, e.benchmark) == (evaluation["stage"], evaluation["benchmark"])
    ]
    assert (evaluation["num_problems"], evaluation["num_correct"]) == (same.num_problems, same.num_correct)
    assert (evaluation["accuracy"], evaluation["format_rate"]) == (same.accuracy, same.format_rate)
    (rollouts,) = [record for record in records if "all_zero" in record]
    assert rollouts["all_zero"] + rollouts["all_one"] + rollouts["mixed"] == 1
    (graded,) = [record for record in records if "group" in record]
    assert graded["accuracy"] * graded["num_samples"] == graded["num_correct"]
