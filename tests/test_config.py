"""Tables 5 and 6 ARE the defaults: every row is a field with that value, or stands here with its reason."""

import ast
import dataclasses
from pathlib import Path

import pytest

from reference import config as config_module
from reference.config import PRESETS, Config, flatten
from reference.paper.reported import TABLE_5, TABLE_6
from reference.stages.plan import stage_names

TABLE_5_FIELDS = {
    "Training epochs": ["sft.epochs"],
    "Train batch size": ["sft.batch_size"],
    "Max token length per GPU": ["sft.max_tokens_per_batch", "sft.max_length"],
    "Learning rate": ["sft.lr"],
    "Warmup ratio": ["sft.warmup_ratio"],
    "Minimum LR ratio": ["sft.min_lr_ratio"],
    "Weight decay": ["sft.weight_decay"],
    "Adam betas": ["sft.betas"],
    "Gradient clipping": ["sft.max_grad_norm"],
    "Save frequency": ["sft.save_every"],
    "Seed": ["seed"],
}
TABLE_5_OTHERWISE = {
    "Framework": "this project is the framework",
    "Training engine": "one process",
    "Number of GPUs": "a matter of the launch, not of the method",
    "Micro batch size per GPU": "the dynamic batch size takes its place",
    "Dynamic batch size": "always: engines.batches.token_batches",
    "Padding mode": "padding is never looked at: engines.policy",
    "Truncation strategy": "the only one there is: stages.train_sft.tokenize",
    "Messages field": "records.SFTExample.messages",
    "LR scheduler": "the only one there is: paper.sft.cosine_schedule",
    "Remove padding": "the head runs on supervised positions only",
    "Torch compile": "never",
    "Evaluation frequency": "after every stage",
    "Resume mode": "a run always goes on from where it was; the result is the same",
}
TABLE_6_FIELDS = {
    "Training epochs": ["grpo.epochs"],
    "Train batch size": ["grpo.batch_size"],
    "Prompt length": ["data.max_prompt_tokens"],
    "Response length": ["grpo.max_new_tokens", "difficulty.max_new_tokens", "evaluation.max_new_tokens"],
    "Actor learning rate": ["grpo.lr"],
    "PPO mini-batch size": ["grpo.mini_batch_size"],
    "Gradient clipping ratio": ["grpo.clip_eps"],  # ambiguity A35
    "KL coefficient": ["grpo.kl_coef"],
    "Rollout samples per prompt": ["grpo.num_rollouts"],
    "Sampling temperature": ["grpo.temperature", "difficulty.temperature", "evaluation.temperature"],
    "Top-p": ["grpo.top_p", "difficulty.top_p", "evaluation.top_p"],
}
TABLE_6_OTHERWISE = {
    "Framework": "this project is the framework",
    "RL algorithm": "the only one there is",
    "Number of GPUs": "a matter of the launch, not of the method",
    "Actor strategy": "one process",
    "PPO micro-batch size per GPU": "grpo.max_tokens_per_batch; the loss is the same whatever the split",
    "KL loss": "always; grpo.kl_coef 0 switches it off",
    "KL loss type": "the only one there is: paper.grpo.low_variance_kl",
    "Rollout engine": "Hugging Face",
    "Rollout dtype": "bfloat16 on a GPU: model.activation_dtype",
    "Tensor model parallel size": "one process",
    "GPU memory utilization": "vLLM's",
    "Prefix caching": "vLLM's",
    "Eager execution": "vLLM's",
    "Log-prob micro batch per GPU": "grpo.max_tokens_per_batch",
    "Reward filtering": "always: stages.filter_rewards",
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
    assert len(trained) == 2 + 1 + 3 + 1
    for name in trained:
        assert names[names.index(name) + 1] == f"eval/{name.replace('/', '-')}"
    assert [name for name in trained if name.endswith("3_recycled")] == ["iter2/1_sft/3_recycled"]
    assert [name for name in names if name.endswith("4_recycle")] == ["iter1/4_recycle"]
    assert not any(name.startswith("eval/") for name in stage_names(Config()))  # no benchmark was given
