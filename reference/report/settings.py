"""A run's settings beside Tables 5 and 6: which rows they are, and where they differ."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reference.config import Config, flatten
from reference.paper.reported import TABLE_5, TABLE_6

# Row of the table -> the settings that are this row. The other rows are no settings (ambiguity A59).
TABLE_5_FIELDS: Mapping[str, Sequence[str]] = {
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
TABLE_6_FIELDS: Mapping[str, Sequence[str]] = {
    "Training epochs": ["grpo.epochs"],
    "Train batch size": ["grpo.batch_size"],
    "Prompt length": ["data.max_prompt_tokens"],
    "Response length": ["grpo.max_new_tokens", "difficulty.max_new_tokens", "evaluation.max_new_tokens"],
    "Actor learning rate": ["grpo.lr"],
    "PPO mini-batch size": ["grpo.mini_batch_size"],
    "Gradient clipping ratio": ["grpo.clip_eps"],  # ambiguity A35
    "KL coefficient": ["grpo.kl_coef"],
    "Reward filtering": ["grpo.exclude_all_zero"],
    "Rollout samples per prompt": ["grpo.num_rollouts"],
    "Sampling temperature": ["grpo.temperature", "difficulty.temperature", "evaluation.temperature"],
    "Top-p": ["grpo.top_p", "difficulty.top_p", "evaluation.top_p"],
    "GPU memory utilization": ["vllm.gpu_memory_utilization"],
    "Prefix caching": ["vllm.prefix_caching"],
    "Eager execution": ["vllm.enforce_eager"],
}


class Setting(NamedTuple):
    """One setting that differs. `row` is the table's own name for it, empty where no table has it."""

    table: str
    row: str
    name: str
    expected: object
    used: object


def differences(settings: Mapping[str, object]) -> list[Setting]:
    """Where a run departs from Tables 5 and 6, and after that from the other defaults. Values as JSON has them."""
    found: list[Setting] = []
    seen: set[str] = set()
    for table, reported, as_fields in (("Table 5", TABLE_5, TABLE_5_FIELDS), ("Table 6", TABLE_6, TABLE_6_FIELDS)):
        for row, names in as_fields.items():
            expected = _as_json(reported[row])
            seen.update(names)
            found += [Setting(table, row, name, expected, settings[name]) for name in names if name in settings]
    for name, default in flatten(Config()).items():
        if name not in seen and name in settings:
            found.append(Setting("", "", name, _as_json(default), settings[name]))
    return [setting for setting in found if setting.used != setting.expected]


def _as_json(value: object) -> object:
    return json.loads(json.dumps(value))
