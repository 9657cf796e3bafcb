"""Tables 5 and 6 ARE the defaults: every row is a field with that value, or stands here with its reason."""

import ast
import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

from reference import config as config_module
from reference.config import FREE, PRESETS, Config, ReadingsConfig, flatten
from reference.engines.benchmarks import DATA_SETS
from reference.paper.reported import (
    BENCHMARKS,
    LLAMA,
    QWEN,
    TABLE_5,
    TABLE_6,
    TABLE_8,
    TABLE_9_STEPS,
    TABLE_9_TOKENS,
)
from reference.report.settings import TABLE_5_FIELDS, TABLE_6_FIELDS
from reference.stages.plan import stage_names

PAPERS = [name for name in PRESETS if name not in ("tiny", "verl")]
TABLE_5_OTHERWISE = {
    "Framework": "this project is the framework",
    "Training engine": "FSDP2 wherever there are several processes: engines.distributed.Process.shard",
    "Number of GPUs": "a matter of the launch, not of the method; `processes` holds a launch to it",
    "Micro batch size per GPU": "the dynamic batch size takes its place",
    "Dynamic batch size": "always: engines.batches.token_batches",
    "Padding mode": "padding is never looked at: engines.policy",
    "Truncation strategy": "the only one there is: stages.train_sft.tokenize",
    "Messages field": "records.SFTExample.messages",
    "LR scheduler": "the only one there is: paper.sft.cosine_schedule",
    "Remove padding": "model.packing in the paper's presets; otherwise sequences of similar length share a forward",
    "Torch compile": "never",
    "Evaluation frequency": "after every stage",
    "Resume mode": "a run always goes on from where it was; the result is the same",
}
TABLE_6_OTHERWISE = {
    "Framework": "this project is the framework",
    "RL algorithm": "the only one there is",
    "Number of GPUs": "a matter of the launch, not of the method",
    "Actor strategy": "FSDP2 wherever there are several processes",
    "PPO micro-batch size per GPU": "grpo.max_tokens_per_batch, room for 2 sequences of 1024 + 1024 tokens",
    "KL loss": "always; grpo.kl_coef 0 switches it off",
    "KL loss type": "the only one there is: paper.grpo.low_variance_kl",
    "Rollout engine": "vLLM in the paper's presets (`sampler`); the one that runs everywhere otherwise",
    "Rollout dtype": "bfloat16 on a GPU: engines.distributed.Process.rollout_dtype",
    "Tensor model parallel size": "vllm.tensor_parallel is 1: 4 does not divide Qwen2.5-0.5B's 14 heads (A37)",
    "Log-prob micro batch per GPU": "grpo.max_tokens_per_batch",
    "Filtering metric": "the only one there is: paper.recycling.split_by_reward",
    "Validation before training": "the base is evaluated; nothing is chosen by it",
    "Save frequency": "grpo.save_every, for interruptions",
    "Evaluation frequency": "after every stage",
    "Resume mode": "a run always goes on from where it was; the result is the same",
}


@pytest.mark.parametrize(
    ("table", "as_fields", "otherwise"),
    [(TABLE_5, TABLE_5_FIELDS, TABLE_5_OTHERWISE), (TABLE_6, TABLE_6_FIELDS, TABLE_6_OTHERWISE)],
    ids=["Table 5", "Table 6"],
)
def test_each_row_of_the_table_is_a_default_or_has_its_reason(table, as_fields, otherwise):
    assert not as_fields.keys() & otherwise.keys()
    assert as_fields.keys() | otherwise.keys() == table.keys()
    defaults = flatten(Config())
    for row, names in as_fields.items():
        for name in names:
            assert defaults[name] == table[row], (
                f"{row} is {table[row]} in the paper and {name} = {defaults[name]} here"
            )


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_presets_are_tables_5_and_6_and_the_models_own_means(name):
    """Beyond the model, its data and Tables 8 and 9 a preset changes nothing but the engine and the packing."""
    preset, defaults = flatten(PRESETS[name]), flatten(Config())
    for table, as_fields in ((TABLE_5, TABLE_5_FIELDS), (TABLE_6, TABLE_6_FIELDS)):
        for row, names in as_fields.items():
            assert all(preset[field] == table[row] for field in names), row
    changed = {field for field, value in preset.items() if value != defaults[field]}
    own = {"model.path", "data.train", "data.tests", "bridge.tau_difficulty", "recycling.tau_length"}
    assert changed - {"model.path"} == own - {"model.path"} | {"recycling.tau_steps", "sampler", "model.packing"}
    assert preset["bridge.tau_difficulty"] == TABLE_8[name].mean
    assert preset["recycling.tau_length"] == TABLE_9_TOKENS[name].mean
    assert preset["recycling.tau_steps"] == TABLE_9_STEPS[name].mean
    assert (
        preset["sampler"] == TABLE_6["Rollout engine"].lower() and preset["model.packing"] == TABLE_5["Remove padding"]
    )


def test_the_preset_verl_is_the_papers_first_run_with_verls_equations():
    verl, qwen = flatten(PRESETS["verl"]), flatten(PRESETS[QWEN])
    assert {name: value for name, value in verl.items() if value != qwen[name]} == {"equations": "verl"}


def test_the_papers_presets_name_their_models_and_the_papers_benchmarks():
    assert [PRESETS[name].model.path for name in PAPERS] == [
        "Qwen/Qwen2.5-0.5B-Instruct",
        "meta-llama/Llama-3.2-1B-Instruct",
    ]
    assert PAPERS == [QWEN, LLAMA]
    for name in PAPERS:
        assert PRESETS[name].data.train == DATA_SETS["gsm8k"].hub_id
        assert [test.replace("_", "").upper() for test in PRESETS[name].data.tests] == [
            benchmark.replace("-", "").upper() for benchmark in BENCHMARKS
        ]


def test_what_may_change_in_the_middle_of_a_run_changes_no_result():
    assert set(FREE) <= flatten(Config()).keys()
    sections = ("sft", "grpo", "bridge", "difficulty", "model", "data", "vllm")
    assert {
        name for name in FREE if name.startswith(sections)
    } == {  # one step or response is the same with any of them
        *("model.packing", "model.activation_checkpointing", "vllm.gpu_memory_utilization"),
        *("sft.max_tokens_per_batch", "grpo.max_tokens_per_batch"),
    }
    assert not {"teacher.model", "teacher.temperature", "teacher.attempts", "sampler", "seed"} & set(FREE)


def test_the_numbers_that_the_text_gives_are_defaults_too():
    defaults = flatten(Config())
    assert defaults["difficulty.num_samples"] == 64  # Section 3.1
    assert (defaults["bridge.tau_importance"], defaults["bridge.tau_jumpiness"]) == (0.5, 0.5)  # Appendix C.1
    assert defaults["recycling.weights"] == (1.0, 1.0, 1.0)  # Appendix C.2
    assert defaults["evaluation.pass_samples"] == 64  # Appendix A.1
    assert defaults["iterations"] == 2  # Section 4.2
    assert defaults["grpo.advantage_eps"] == 1e-6  # A32


def dataclass_bodies():
    tree = ast.parse(Path(config_module.__file__).read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("body", dataclass_bodies(), ids=lambda body: body.name)
def test_every_setting_has_its_help(body):
    """A section of settings (a field whose type is a dataclass) has the help in its class."""
    sections = {other.name for other in dataclass_bodies()}
    assert ast.get_docstring(body)
    statements = body.body[1:]
    for statement, following in zip(statements, [*statements[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or ast.unparse(statement.annotation) in sections:
            continue
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        assert is_text and len(following.value.value) > 10, f"{body.name}.{statement.target.id} has no help"


def test_every_setting_is_typed_and_frozen():
    config = Config()
    for section in (config, *(getattr(config, field.name) for field in dataclasses.fields(config))):
        if dataclasses.is_dataclass(section):
            assert type(section).__dataclass_params__.frozen


def test_flatten_gives_every_setting_its_command_line_name():
    flat = flatten(Config())
    assert flat["seed"] == 1111 and flat["grpo.kl_coef"] == 0.001
    sections = [value for value in vars(Config()).values() if dataclasses.is_dataclass(value)]
    own = len(dataclasses.fields(Config)) - len(sections)
    assert len(flat) == own + sum(len(dataclasses.fields(section)) for section in sections)


def test_the_offline_preset_needs_no_file_and_no_network():
    tiny = PRESETS["tiny"]
    assert (tiny.model.path, tiny.data.train, tiny.data.tests) == ("offline", "offline", ("offline",))
    assert tiny.grpo.num_rollouts == 8 and tiny.grpo.kl_coef == 0.001  # the method itself stays the paper's
    assert tiny.grpo.batch_size // tiny.grpo.mini_batch_size == 2


def test_an_evaluation_follows_every_stage_that_makes_a_checkpoint():
    names = stage_names(PRESETS["tiny"])
    assert names[0] == "eval/base"
    trained = [name for name in names if not name.startswith("eval/") and ("/1_sft/" in name or "3_grpo" in name)]
    assert len(trained) == 2 + 1 + 1 + 1
    for name in trained:
        assert names[names.index(name) + 1] == f"eval/{name.replace('/', '-')}"
    assert [name for name in trained if name.startswith("iter2/1_sft/")] == ["iter2/1_sft/union"]
    phases = stage_names(replace(PRESETS["tiny"], readings=ReadingsConfig(later_sft="phases")))
    in_order = [f"iter2/1_sft/{phase}" for phase in ("1_medium", "2_bridge", "3_recycled")]
    assert [name for name in phases if name.startswith("iter2/1_sft/")] == in_order
    assert [name for name in names if name.endswith("4_recycle")] == ["iter1/4_recycle"]
    assert not any(name.startswith("eval/") for name in stage_names(Config()))  # no benchmark was given
