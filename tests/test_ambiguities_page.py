"""docs/ambiguities.md argues each choice that the code cites by number. It must stay true when code moves.

Its arithmetic is done again here, from the paper's tables as `reference/paper/reported.py` has them.
"""

import ast
import re
from dataclasses import fields
from math import sqrt
from pathlib import Path

import pytest

from reference.cli import Command
from reference.config import Config, flatten
from reference.paper.difficulty import difficulty_group
from reference.paper.reported import (
    LLAMA,
    QWEN,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    TABLE_9_STEPS,
    TABLE_9_TOKENS,
    TABLE_10,
    TABLE_11,
    TABLE_12,
)
from reference.records import DifficultyGroup
from reference.report.settings import TABLE_5_FIELDS, TABLE_6_FIELDS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ambiguities.md").read_text(encoding="utf-8")
CODE = [*sorted((ROOT / "reference").rglob("*.py")), ROOT / "run_paper.py"]
NUMBER = re.compile(r"\bA([0-9]{1,2})\b")
HEADINGS = [int(number) for number in re.findall(r"^## A([0-9]+)\. \S", PAGE, re.MULTILINE)]
REFERENCES = sorted(set(re.findall(r"([\w./]+)::([\w.]+)", PAGE)))
OPTIONS = sorted(set(re.findall(r"(?<![\w-])--([\w.-]*\w)", PAGE)))
BODIES = re.split(r"^## .*$", PAGE, flags=re.MULTILINE)[1:]
ENTRIES = {number: " ".join(body.split()) for number, body in zip(HEADINGS, BODIES[:-1], strict=True)}
INDEX = re.findall(r"^\| A([0-9]+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
NOT_IN_THE_CODE = {53}  # slips in the paper's sentences, with which no code has to do


def cited_in(text):
    return {int(number) for number in NUMBER.findall(text)}


def names_in(nodes):
    """The functions, classes, methods (`Class.method`) and constants that a file defines at its top."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner}" for inner in names_in(node.body)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return names


def test_each_number_has_one_entry_and_none_is_left_out():
    assert HEADINGS == list(range(1, 60))
    assert len(BODIES) == len(HEADINGS) + 1  # the table at the end


def test_each_entry_says_something():
    assert all(len(entry.split()) > 20 for entry in ENTRIES.values())


def test_the_table_has_a_place_and_a_test_for_each_entry():
    assert [int(number) for number, _, _ in INDEX] == HEADINGS
    for number, place, tests in INDEX:
        assert re.search(r"Eqs?\. |Algorithm 1|Tables? |Figures? |Sections? |Appendix ", place), number
        assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`(<br>`tests/[\w/]+\.py::test_\w+`)*", tests), number


@pytest.mark.parametrize("path", CODE, ids=[path.relative_to(ROOT).as_posix() for path in CODE])
def test_each_number_in_the_code_has_an_entry(path):
    assert cited_in(path.read_text(encoding="utf-8")) <= set(HEADINGS)


def test_the_code_cites_the_page():
    cited = set().union(*(cited_in(path.read_text(encoding="utf-8")) for path in CODE))
    assert set(HEADINGS) - NOT_IN_THE_CODE == cited - NOT_IN_THE_CODE
    assert not NOT_IN_THE_CODE & cited, "the code cites it now: take it out of NOT_IN_THE_CODE"


def test_each_number_on_the_page_has_an_entry():
    assert cited_in(PAGE) <= set(HEADINGS)


@pytest.mark.parametrize("path, name", REFERENCES, ids=[f"{path}::{name}" for path, name in REFERENCES])
def test_each_name_on_the_page_is_there(path, name):
    assert (ROOT / path).is_file(), f"there is no file {path}"
    assert name in names_in(ast.parse((ROOT / path).read_text(encoding="utf-8")).body), f"{path} defines no {name}"


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_on_the_page_is_there(option):
    names = {*flatten(Config()), *(field.name for field in fields(Command))} - {"config"}
    assert option in {name.replace("_", "-") for name in names}


def test_the_page_names_code_and_options():
    assert len(REFERENCES) > 40 and len(OPTIONS) > 15


# What the entries say in numbers


def states(number, *claims):
    """Whether the entry says each of these, whatever its line breaks."""
    missing = [claim for claim in claims if claim not in ENTRIES[number]]
    assert not missing, f"A{number} does not say {missing}"


@pytest.mark.parametrize(
    ("number", "option", "said", "value"),
    [
        (12, "difficulty.temperature", "0.7", 0.7),
        (12, "difficulty.top_p", "0.9", 0.9),
        (24, "grpo.num_rollouts", "We take 8", 8),
        (30, "sft.epochs", "one epoch", 1),
        (30, "sft.warmup_ratio", "warm-up 0.2", 0.2),
        (32, "grpo.advantage_eps", "1e-6", 1e-6),
        (35, "grpo.clip_eps", "$\\epsilon_c$ is 0.2", 0.2),
        (35, "grpo.max_grad_norm", "clipped at 1.0", 1.0),
        (37, "vllm.tensor_parallel", "Ours is 1", 1),
        (38, "sft.max_tokens_per_batch", "1536 as both", 1536),
        (38, "sft.max_length", "1536 as both", 1536),
        (40, "grpo.lr", "1e-6", 1e-6),
        (40, "grpo.weight_decay", "0.01", 0.01),
        (40, "grpo.betas", "0.9, 0.999", (0.9, 0.999)),
        (49, "evaluation.temperature", "0.7", 0.7),
        (49, "evaluation.top_p", "0.9", 0.9),
    ],
)
def test_what_an_entry_takes_is_the_default(number, option, said, value):
    states(number, said)
    assert flatten(Config())[option] == value


def rounded(k, n):
    return f"{100 * k / n:.2f}"


def share(percent, n):
    """`54.23 is 282/520`: the printed figure as the share that rounds to it."""
    k = round(percent * n / 100)
    assert rounded(k, n) == f"{percent:.2f}"
    return f"{percent:.2f} is {k}/{n}"


def without_mawps(row):
    return f"{sum([row.gsm8k_platinum, row.svamp, row.math500, row.logiqa]) / 4:.2f}"


def test_a1_mawps():
    assert TABLE_7["MAWPS"].test == 351
    own, baseline, late = TABLE_1[QWEN]["Our Model"].mawps, TABLE_1[QWEN]["Base"].mawps, TABLE_11[3].mawps
    states(1, "351 problems", share(baseline, 520), share(own, 355), share(late, 351))
    leads = [
        " to ".join(without_mawps(TABLE_1[model][name]) for name in ("Our Model", "DURIT")) for model in (QWEN, LLAMA)
    ]
    states(1, f"{leads[0]} on Qwen and {leads[1]} on Llama")


def test_a2_50_38():
    printed = f"{TABLE_11[1].gsm8k_platinum:.2f}"
    states(2, printed, f"Of 1209 problems, 609 make {rounded(609, 1209)} and 610 make {rounded(610, 1209)}")
    assert rounded(609, 1209) < printed < rounded(610, 1209)
    states(2, f"{printed} is 665/1320")
    assert rounded(665, TABLE_7["GSM8K"].test) == printed


def test_a3_cut_off():
    cells = {
        "555/1209": (TABLE_10[LLAMA]["SFT-Mixed"].gsm8k_platinum, 555 / 1209),
        "559/1209": (TABLE_10[LLAMA]["SFT-Medium"].gsm8k_platinum, 559 / 1209),
        "215/520": (TABLE_1[LLAMA]["PRewrite"].mawps, 215 / 520),
    }
    for fraction, (printed, exact) in cells.items():
        states(3, f" {printed:.2f} ", f"{fraction} = {100 * exact:.3f}")
        assert printed < 100 * exact and f"{100 * exact:.2f}" != f"{printed:.2f}"


def test_a4_51_37():
    row = TABLE_10[LLAMA]["SFT-Medium -> Raw-Hard"]
    states(
        4,
        f"is {row.svamp:.2f} in",
        f"computed from {row.svamp:.2f}",
        f"has {TABLE_7['SVAMP'].test} problems",
        f"154/300 = {rounded(154, 300)}",
    )
    possible = sum(row[:5]) - row.svamp + 100 * 154 / 300
    assert f"{sum(row[:5]) / 5:.2f}" == f"{row.average:.2f}" != f"{possible / 5:.2f}"


def test_a5_gsm8k():
    states(5, f"Table 7 says {TABLE_7['GSM8K'].test}", "has 1319")


def test_a6_durit():
    own, durit = TABLE_1[LLAMA]["Our Model"], TABLE_1[LLAMA]["DURIT"]
    ahead = [name for name in own._fields[:5] if getattr(durit, name) > getattr(own, name)]
    assert ahead == ["svamp", "math500"]
    states(6, "two of Llama's five", *(f"({getattr(durit, n):.2f} to {getattr(own, n):.2f})" for n in ahead))


def test_a7_chance():
    states(7, "four options", f"{100 / 4:.0f}%", f"{TABLE_1[QWEN]['Base'].logiqa:.2f}")
    states(7, f"{TABLE_1[LLAMA]['Base'].logiqa:.2f}", f"{TABLE_1[LLAMA]['Base'].mawps:.2f} on MAWPS")


def test_a8_exclusion():
    unfiltered = [TABLE_3[model]["Initial SFT + GRPO"] for model in (QWEN, LLAMA)]
    without_rl = [TABLE_10[model]["SFT-Medium -> Bridged-Hard"].average for model in (QWEN, LLAMA)]
    assert all(low < high for low, high in zip(unfiltered, without_rl, strict=True))
    states(8, *("{:.2f} and {:.2f}".format(*pair) for pair in (unfiltered, without_rl)))


def test_a9_removals():
    qwen, llama = TABLE_2[QWEN], TABLE_2[LLAMA]
    states(9, f"Llama ({llama['w/o Comp./Drop'].average:.2f})", f"({qwen['w/o Comp./Drop'].average:.2f})")
    low, none = qwen["w/o Localize"].pass_at_8, qwen["Raw Hard"].pass_at_8
    assert low < none
    states(9, f"pass@8 ({low:.2f}) than no Bridge at all ({none:.2f})")


def test_a10_nothing_is_left_for_validation():
    spent = {sum(groups.values()) for groups in TABLE_4.values()}
    assert spent == {TABLE_7["GSM8K"].train}
    states(10, *(f"all {number} training problems" for number in spent))


def test_a11_the_two_borders():
    def as_appendix_a_says(rho):
        groups = [
            group for group, at_least in ((DifficultyGroup.MEDIUM, 0.25), (DifficultyGroup.HARD, 0)) if rho >= at_least
        ]
        return DifficultyGroup.SIMPLE if rho > 0.75 else groups[0]

    differ = [c for c in range(65) if difficulty_group(c / 64) != as_appendix_a_says(c / 64)]
    states(11, *(f"differ for {c} correct responses of 64 and nowhere else" for c in differ))
    assert len(differ) == 1


def test_a16_tokens_not_steps():
    tokens = TABLE_8[QWEN]
    quantiles = f"{tokens.minimum:.2f}, a median of {tokens.median:.2f} and a maximum of {tokens.maximum:.2f}"
    steps = [unit.scores.difficulty for unit in TABLE_12]
    presets = f"Table 8's {tokens.mean} and {TABLE_8[LLAMA].mean}"
    states(16, f"a minimum of {quantiles}", f"between {min(steps):.1f} and {max(steps):.1f}", presets)


def test_a21_the_step_counts_of_table_9():
    means = [f"{TABLE_9_STEPS[model].mean:.2f}" for model in (QWEN, LLAMA)]
    assert {TABLE_9_STEPS[model].median for model in (QWEN, LLAMA)} == {7}
    states(21, f"{means[0]} and {means[1]}, stand above the same medians of 7")


def test_a24_and_a47_how_often_a_problem_fails_the_filter():
    fails = [round(100 * (1 - accuracy) ** 8) for accuracy in (1 / 64, 1 / 8, 1 / 4)]
    states(24, f"fails the filter in {fails[0]} cases of 100", f"once in 8 in {fails[1]}", f"(1/4) still in {fails[2]}")
    states(47, f"is taken in {100 - fails[0]} cases of 100")


def test_a28_the_end_of_iteration_1():
    recycled, filtered = (
        TABLE_10[QWEN][f"SFT-Medium -> Bridged-Hard + GRPO{rest}"].average for rest in (" + Recycling", "")
    )
    assert TABLE_11[1].average == recycled
    states(28, f'"+ GRPO + Recycling" ({recycled})', f'"+ GRPO" ({filtered})')


def test_a32_the_two_deviations():
    states(32, f"\u221a(8/7) = {sqrt(8 / 7):.3f} at G = 8")


def test_a38_longer_than_1536():
    assert TABLE_5["Max token length per GPU"] == 1536
    states(38, f"up to {max(row.maximum for row in TABLE_9_TOKENS.values())} tokens")


def test_a48_the_places_of_logiqa():
    states(48, f"12 wrong answers, {100 * 12 / TABLE_7['LogiQA'].test:.1f}% of {TABLE_7['LogiQA'].test}")


def test_a51_the_names_of_the_baselines(paper_text):
    setup, tables = paper_text.split("4.1 Experimental Setup")[1].split("Methods In-Domain Out-of-Domain Average", 1)
    states(51, "Std-CoT", "CoT-Dis", "DURIT")
    assert ("Std-CoT" in setup, "DURIT" in setup) == (True, False)
    assert "CoT-Dis" in tables and "Std-CoT" not in tables and "DURIT" in tables


def test_a53_the_slips_stand_in_the_paper(paper_text):
    assert "non-all-zero samples All-zero" in paper_text
    assert re.search(r"Qwen3 technical report\..* Cited by: \u00a74\.1, Table 1", paper_text)
    assert "MATH500 Hendrycks et al. (2021)" in " ".join(paper_text.split())
    before_references = paper_text.split("\nReferences\n")[0]
    assert before_references.count("Critique Fine-Tuning") == 3  # abstract, Sections 3.1 and 5


def test_a59_every_row_is_a_setting_or_explained():
    rows = [(TABLE_5, TABLE_5_FIELDS), (TABLE_6, TABLE_6_FIELDS)]
    unset = {row for table, as_fields in rows for row in table if row not in as_fields}
    assert len(unset) > 20
    assert all(row in ENTRIES[59] for row in unset), [row for row in unset if row not in ENTRIES[59]]
