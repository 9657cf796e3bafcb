"""The paper's tables as it prints them, to set a reproduction beside. Nothing here enters the method.

Slips are kept as printed and marked A1 to A9, as in docs/ambiguities.md, where they stand:

A1  The MAWPS column mixes three test sets: the base and baseline rows fit 520 problems, the authors' own rows 355,
    iterations 3 and 4 of Table 11 fit 351, which is also Table 7's number. MAWPS figures cannot be compared.
A2  50.38 on GSM8K-Platinum is no k/1209 (609 gives 50.37, 610 gives 50.45); it is 665/1320.
A3  Three cells are cut off, not rounded.
A4  51.37 on SVAMP is no k/300 (154 gives 51.33); the printed average was computed from it.
A5  Table 7 has 1320 GSM8K test problems; the official file has 1319.
A6  The text calls the gains consistent across benchmarks; DURIT is ahead on Llama's SVAMP and MATH500.
A7  Chance is 25% on LogiQA's four options, so a figure far below it measures the answers' format more than the
    reasoning. The same holds for Llama's base row on MAWPS.
A8  Table 3's first row is below Table 10's Bridged-Hard row, which has no RL at all: GRPO without the exclusion hurts.
A9  The text says that removing Compress and Drop hurts most in the end; on Qwen it hurts least.
"""

from collections.abc import Mapping
from typing import NamedTuple

from reference.records import Action, DifficultyGroup, Problem, StepScores, Thresholds

QWEN = "qwen2.5-0.5b"
LLAMA = "llama3.2-1b"

Setting = str | bool | int | float | tuple[float, float]

BENCHMARKS = ("GSM8K-Platinum", "MAWPS", "SVAMP", "MATH500", "LogiQA")


class Row(NamedTuple):
    """A row of Table 1, 10 or 11: accuracy in percent on each of BENCHMARKS, and the printed average of the five."""

    gsm8k_platinum: float
    mawps: float
    svamp: float
    math500: float
    logiqa: float
    average: float


class BridgeAblation(NamedTuple):
    """A row of Table 2, in percent: pass@8 after the initial SFT, average accuracy after two iterations."""

    pass_at_8: float
    average: float


class DatasetSize(NamedTuple):
    """A row of Table 7; `train` is None where the data set is for evaluation only."""

    train: int | None
    test: int


class Distribution(NamedTuple):
    """A row of Table 8 or 9."""

    mean: float
    minimum: float
    quarter: float
    median: float
    three_quarters: float
    maximum: float


class BridgedUnit(NamedTuple):
    """A row of Table 12."""

    text: str
    scores: StepScores
    action: Action


# Table 1: the main results. MAWPS: A1. LogiQA: A7. The other methods: A51.
TABLE_1: Mapping[str, Mapping[str, Row]] = {
    QWEN: {
        "Base": Row(45.74, 54.23, 54.67, 27.80, 14.44, 39.38),
        "CoT-Dis": Row(44.67, 55.77, 58.33, 18.80, 30.41, 41.60),
        "STaR": Row(51.86, 57.88, 61.67, 29.60, 23.50, 44.90),
        "GRPO": Row(51.03, 58.08, 61.00, 27.40, 22.73, 44.05),
        "PRewrite": Row(47.23, 56.73, 57.00, 29.80, 23.96, 42.94),
        "Vanilla-KD": Row(49.30, 57.69, 61.67, 30.40, 20.74, 43.96),
        "DURIT": Row(53.10, 60.38, 63.00, 32.80, 25.81, 47.02),
        "Our Model": Row(54.51, 63.94, 64.00, 33.60, 32.41, 49.69),
    },
    LLAMA: {
        "Base": Row(30.52, 5.77, 20.67, 22.60, 1.54, 16.22),
        "CoT-Dis": Row(48.06, 56.92, 57.67, 24.60, 21.81, 41.81),
        "STaR": Row(36.31, 52.50, 54.33, 20.00, 8.45, 34.32),
        "GRPO": Row(48.39, 59.23, 57.67, 26.40, 4.45, 39.23),
        "PRewrite": Row(35.81, 41.34, 46.00, 18.80, 3.53, 29.10),  # MAWPS: A3, 215/520
        "Vanilla-KD": Row(42.35, 64.23, 62.67, 22.40, 7.99, 39.93),
        "DURIT": Row(52.36, 62.31, 66.00, 27.60, 19.82, 45.62),
        "Our Model": Row(54.18, 72.68, 65.67, 26.60, 23.50, 48.53),  # SVAMP, MATH500: A6
    },
}

# Table 2: Bridge without some of its operations (A9)
TABLE_2: Mapping[str, Mapping[str, BridgeAblation]] = {
    QWEN: {
        "w/o Expand": BridgeAblation(75.11, 43.89),
        "w/o Localize": BridgeAblation(74.86, 44.35),
        "w/o Comp./Drop": BridgeAblation(78.35, 47.67),
        "Raw Hard": BridgeAblation(75.03, 44.04),
        "Full Bridge": BridgeAblation(79.23, 49.69),
    },
    LLAMA: {
        "w/o Expand": BridgeAblation(83.47, 45.69),
        "w/o Localize": BridgeAblation(84.29, 46.22),
        "w/o Comp./Drop": BridgeAblation(82.33, 42.07),
        "Raw Hard": BridgeAblation(82.06, 40.18),
        "Full Bridge": BridgeAblation(85.63, 48.53),
    },
}

# Table 3: what to do with all-zero-reward problems; average accuracy in percent (A8)
TABLE_3: Mapping[str, Mapping[str, float]] = {
    QWEN: {
        "Initial SFT + GRPO": 42.16,
        "w/ all-zero exclusion": 44.15,
        "w/ all-zero exclusion + Recycling": 45.27,
    },
    LLAMA: {
        "Initial SFT + GRPO": 39.21,
        "w/ all-zero exclusion": 41.65,
        "w/ all-zero exclusion + Recycling": 43.03,
    },
}

# Table 4: GSM8K's training problems by difficulty for each base model
TABLE_4: Mapping[str, Mapping[DifficultyGroup, int]] = {
    QWEN: {DifficultyGroup.SIMPLE: 2616, DifficultyGroup.MEDIUM: 2869, DifficultyGroup.HARD: 1988},
    LLAMA: {DifficultyGroup.SIMPLE: 3504, DifficultyGroup.MEDIUM: 2784, DifficultyGroup.HARD: 1185},
}

# Table 5: the SFT stage. Enabled and Disabled are True and False here and in Table 6.
TABLE_5: Mapping[str, Setting] = {
    "Framework": "VERL SFT trainer",
    "Training engine": "FSDP",
    "Number of GPUs": 2,
    "Training epochs": 1,
    "Train batch size": 8,
    "Micro batch size per GPU": 4,
    "Dynamic batch size": True,
    "Padding mode": "No padding",
    "Truncation strategy": "Right truncation",
    "Max token length per GPU": 1536,
    "Messages field": "messages",
    "Learning rate": 2e-5,
    "LR scheduler": "Cosine",
    "Warmup ratio": 0.2,
    "Minimum LR ratio": 0.1,
    "Weight decay": 0.1,
    "Adam betas": (0.9, 0.95),
    "Gradient clipping": 1.0,
    "Remove padding": True,
    "Torch compile": False,
    "Save frequency": 100,  # steps
    "Evaluation frequency": 100,  # steps
    "Seed": 1111,
    "Resume mode": False,
}

# Table 6: the GRPO stage
TABLE_6: Mapping[str, Setting] = {
    "Framework": "VERL PPO trainer",
    "RL algorithm": "GRPO",
    "Number of GPUs": 4,
    "Training epochs": 1,
    "Train batch size": 16,
    "Prompt length": 1024,
    "Response length": 1024,
    "Actor strategy": "FSDP",
    "Actor learning rate": 1e-6,
    "PPO mini-batch size": 8,
    "PPO micro-batch size per GPU": 2,
    "Gradient clipping ratio": 0.2,  # ambiguity A35
    "KL loss": True,
    "KL coefficient": 0.001,
    "KL loss type": "Low-variance KL",
    "Rollout engine": "vLLM",
    "Rollout samples per prompt": 8,
    "Sampling temperature": 0.7,
    "Top-p": 0.9,
    "Rollout dtype": "bfloat16",
    "Tensor model parallel size": 4,  # ambiguity A37
    "GPU memory utilization": 0.4,
    "Prefix caching": False,
    "Eager execution": True,
    "Log-prob micro batch per GPU": 2,
    "Reward filtering": True,
    "Filtering metric": "All-zero reward",
    "Validation before training": False,
    "Save frequency": False,  # none during training
    "Evaluation frequency": False,  # none during training
    "Resume mode": False,
}

# Table 7: the data sets
TABLE_7: Mapping[str, DatasetSize] = {
    "GSM8K": DatasetSize(7473, 1320),  # A5
    "GSM8K-Platinum": DatasetSize(None, 1209),
    "MAWPS": DatasetSize(None, 351),  # A1
    "SVAMP": DatasetSize(None, 300),
    "MATH500": DatasetSize(None, 500),
    "LogiQA": DatasetSize(None, 651),
}

# Table 8: the student's loss on the teacher's traces of hard problems, nats per token. The mean is tau_D.
TABLE_8: Mapping[str, Distribution] = {
    QWEN: Distribution(0.99, 0.00, 0.00, 0.08, 1.08, 22.25),
    LLAMA: Distribution(1.26, 0.00, 0.01, 0.20, 1.59, 27.62),
}

# Table 9: steps in the teacher's traces of hard problems. The mean is tau_s.
TABLE_9_STEPS: Mapping[str, Distribution] = {
    QWEN: Distribution(7.36, 4, 7, 7, 7, 153),
    LLAMA: Distribution(13.67, 4, 7, 7, 13, 162),
}

# Table 9: tokens in the same traces. The mean is tau_l.
TABLE_9_TOKENS: Mapping[str, Distribution] = {
    QWEN: Distribution(242.98, 99, 189, 214, 247, 6763),
    LLAMA: Distribution(287.94, 99, 183, 213, 267, 5669),
}

# Table 10: one part of the method after the other. MAWPS: A1. LogiQA: A7.
TABLE_10: Mapping[str, Mapping[str, Row]] = {
    QWEN: {
        "Base": Row(45.74, 54.23, 54.67, 27.80, 14.44, 39.38),
        "SFT-Mixed": Row(47.97, 56.06, 55.33, 28.60, 15.21, 40.63),
        "SFT-Medium": Row(48.14, 56.90, 56.00, 29.80, 16.13, 41.39),
        "SFT-Medium -> Raw-Hard": Row(48.80, 58.03, 56.67, 30.00, 17.05, 42.11),
        "SFT-Medium -> Bridged-Hard": Row(49.46, 59.44, 57.33, 29.60, 18.89, 42.94),
        "SFT-Medium -> Bridged-Hard + GRPO": Row(49.71, 59.72, 58.00, 30.60, 22.73, 44.15),
        "SFT-Medium -> Bridged-Hard + GRPO + Recycling": Row(50.38, 60.56, 59.33, 31.80, 24.27, 45.27),  # Platinum: A2
        "Full Model": Row(54.51, 63.94, 64.00, 33.60, 32.41, 49.69),
    },
    LLAMA: {
        "Base": Row(30.52, 5.77, 20.67, 22.60, 1.54, 16.22),
        "SFT-Mixed": Row(45.90, 45.63, 49.33, 24.20, 15.36, 36.08),  # Platinum: A3, 555/1209
        "SFT-Medium": Row(46.23, 48.45, 48.67, 24.80, 16.28, 36.89),  # Platinum: A3, 559/1209
        "SFT-Medium -> Raw-Hard": Row(47.48, 49.86, 51.37, 24.40, 17.05, 38.03),  # SVAMP: A4
        "SFT-Medium -> Bridged-Hard": Row(48.22, 52.68, 54.00, 25.20, 18.13, 39.65),
        "SFT-Medium -> Bridged-Hard + GRPO": Row(49.21, 58.59, 55.67, 25.60, 19.20, 41.65),
        "SFT-Medium -> Bridged-Hard + GRPO + Recycling": Row(50.29, 61.41, 58.33, 25.00, 20.12, 43.03),
        "Full Model": Row(54.18, 72.68, 65.67, 26.60, 23.50, 48.53),
    },
}

# Table 11: accuracy by iteration, Qwen only; 0 is the base model. MAWPS: A1.
TABLE_11: Mapping[int, Row] = {
    0: Row(45.74, 54.23, 54.67, 27.80, 14.44, 39.38),
    1: Row(50.38, 60.56, 59.33, 31.80, 24.27, 45.27),  # Platinum: A2
    2: Row(54.51, 63.94, 64.00, 33.60, 32.41, 49.69),
    3: Row(44.09, 58.97, 58.67, 26.20, 25.35, 42.66),
    4: Row(41.85, 55.56, 57.33, 22.40, 21.97, 39.82),
}

# Figure 11: the question of Table 12, a GSM8K training problem
CARLA = Problem(
    id="carla",
    question=(
        "Compared to the amount of water she drank, Carla drank three times as much soda minus 6 ounces. "
        "If she drank 54 ounces of liquid total, how much water did she drink?"
    ),
    gold="15",
)

# Appendix F.1: the thresholds of Table 12
CARLA_THRESHOLDS = Thresholds(importance=0.5, jumpiness=0.5, difficulty=1.26)

# Table 12: the mathematics of each unit is the paper's, the wording is ours
TABLE_12: tuple[BridgedUnit, ...] = (
    BridgedUnit(
        "What the problem says:\n"
        "- Let w be the ounces of water that Carla drank.\n"
        "- Her soda is 6 ounces less than three times the water: s = 3w - 6\n"
        "- Both make 54 ounces: w + s = 54",
        StepScores(importance=1.00, jumpiness=0.00, difficulty=1.4060),
        Action.LOCALIZE,
    ),
    BridgedUnit(
        "### Step 1: Put the soda into the equation for the total\nWrite 3w - 6 for s:\nw + (3w - 6) = 54",
        StepScores(importance=1.00, jumpiness=0.25, difficulty=1.3356),
        Action.LOCALIZE,
    ),
    BridgedUnit(
        "### Step 2: Simplify\nw + 3w - 6 = 54\n4w - 6 = 54",
        StepScores(importance=0.75, jumpiness=0.25, difficulty=0.8654),
        Action.KEEP,
    ),
    BridgedUnit(
        "### Step 3: Find w\nAdd 6 on both sides: 4w = 60\nDivide both sides by 4: w = 15",
        StepScores(importance=1.00, jumpiness=0.25, difficulty=1.2773),
        Action.LOCALIZE,
    ),
    BridgedUnit(
        "### Step 4: Check\n- Water: 15 oz\n- Soda: 3(15) - 6 = 45 - 6 = 39 oz\n- Total: 15 + 39 = 54 oz ✓\n#### 15",
        StepScores(importance=0.25, jumpiness=0.25, difficulty=0.3166),
        Action.COMPRESS,
    ),
)

# Figure 11: what Compress left of unit 5
CARLA_COMPRESSED = "#### 15"


def stage_rows(model: str) -> Mapping[str, Row]:
    """Table 10 in the order of a run's stages: what the paper prints for each checkpoint (ambiguity A28).

    `grpo` is iteration 1's. "+ GRPO + Recycling" is read as the second iteration's SFT, "Full Model" as its GRPO.

    Raises:
        ValueError: the paper has no such model.
    """
    if model not in TABLE_10:
        raise ValueError(f"the paper reports nothing for {model!r}; it has {' and '.join(TABLE_10)}")
    rows = TABLE_10[model]
    return {
        "base": rows["Base"],
        "sft_medium": rows["SFT-Medium"],
        "sft_bridged": rows["SFT-Medium -> Bridged-Hard"],
        "grpo": rows["SFT-Medium -> Bridged-Hard + GRPO"],
        "sft_recycled": rows["SFT-Medium -> Bridged-Hard + GRPO + Recycling"],
        "full": rows["Full Model"],
    }
