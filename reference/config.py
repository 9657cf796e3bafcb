"""Every setting of a run. Tables 5 and 6 ARE the defaults; a preset says where it departs from them.

A field's docstring is its help text on the command line. Sizes that the paper leaves open are marked with the ambiguity
that argues for them (docs/ambiguities.md).
"""

import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Literal

from reference.records import LaterSFT, LocalSamples, ScoresAfter, SFTMean

Equations = Literal["paper", "verl"]
Operation = Literal["expand", "compress", "drop", "localize"]  # of the Bridge


@dataclass(frozen=True)
class ModelConfig:
    """The student."""

    path: str = "Qwen/Qwen2.5-0.5B-Instruct"
    """Checkpoint folder or hub name; `offline` is the tiny base model inside this package."""
    packing: bool = False
    """Train on several sequences in one row, without padding, in place of padded rows of similar length."""
    activation_checkpointing: bool = False
    """Compute each layer's activations again in the backward: less memory, about a third more time."""


@dataclass(frozen=True)
class DataConfig:
    """Training problems and benchmarks."""

    train: str = ""
    """A JSONL file in GSM8K's format (`question`, `answer` ending in `#### N`), or a hub data set such as
    `openai/gsm8k`; `offline` generates the small world."""
    limit: int | None = None
    """Take only the first N training problems."""
    tests: tuple[str, ...] = ()
    """Benchmarks, the in-domain one first: NAME=PATH of a JSONL file, or NAME alone, from the hub, for gsm8k,
    gsm8k_platinum, mawps, svamp and math500, and for logiqa, from its own file (ambiguity A48). These names have
    formats of their own, any other name has GSM8K's. `offline` is the small world."""
    test_limit: int | None = None
    """Take only the first N problems of each benchmark."""
    max_prompt_tokens: int = 1024
    """Table 6: prompt length. Longer problems are left out and counted."""
    prompts: str = ""
    """A folder of NAME.txt templates that replace our own wording of Appendix D's prompts."""


@dataclass(frozen=True)
class VLLMConfig:
    """Table 6: the rollout engine, with `--sampler vllm`."""

    tensor_parallel: int = 1
    """Processes that share one engine. Table 6's 4 cannot divide Qwen2.5-0.5B's 14 heads (ambiguity A37)."""
    gpu_memory_utilization: float = 0.4
    """Table 6: 0.4 of the GPU's memory for the engine."""
    prefix_caching: bool = False
    """Table 6: disabled."""
    enforce_eager: bool = True
    """Table 6: enabled."""


@dataclass(frozen=True)
class TeacherConfig:
    """The stronger model T. Appendix B.1: qwen-plus, temperature 0.7, top-p 0.9, for traces, Bridge and recycling."""

    kind: Literal["symbolic", "chat"] = "chat"
    """`chat`: a model behind an OpenAI-compatible endpoint, its key in OPENAI_API_KEY; `symbolic`: reads the gold
    solution's calculator annotations, offline."""
    base_url: str = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
    """The endpoint, up to and without `/chat/completions`."""
    model: str = "qwen-plus"
    """Appendix B.1's teacher."""
    temperature: float = 0.7
    """Appendix B.1."""
    top_p: float = 0.9
    """Appendix B.1."""
    max_new_tokens: int = 4096
    """The longest answer the teacher may give."""
    attempts: int = 3
    """A bad answer is asked again until this many answers are bad; then the item is rejected."""
    max_rejected: float = 0.5
    """A stage in which a larger share of the items is rejected stops the run."""
    concurrency: int = 32
    """Calls in flight at a time, in each process."""
    timeout: float = 120.0
    """Seconds until a call counts as failed."""
    retries: int = 6
    """How often a call that failed on its way (429, 5xx, timeout) is sent again, later each time."""
    max_calls: int | None = None
    """Budget: stop the run before more calls than this are answered, earlier runs of the folder counted in. What failed
    on its way is not counted."""
    max_tokens: int | None = None
    """Budget: stop the run once the calls have taken this many tokens, read and written."""
    input_price: float = 0.4
    """US dollars for a million tokens read, for the estimate of --dry-run; look up your provider's."""
    output_price: float = 1.2
    """US dollars for a million tokens written."""


@dataclass(frozen=True)
class DifficultyConfig:
    """Section 3.1, Eqs. 1-3."""

    num_samples: int = 64
    """Section 3.1: n = 64 responses for each problem."""
    temperature: float = 0.7
    """Table 6's sampling temperature (the paper names none here, ambiguity A12)."""
    top_p: float = 0.9
    """Table 6's top-p (ambiguity A12)."""
    max_new_tokens: int = 1024
    """Table 6: response length."""


@dataclass(frozen=True)
class BridgeConfig:
    """Section 3.2, Algorithm 1."""

    tau_importance: float = 0.5
    """Appendix C.1: tau_I = 0.5."""
    tau_jumpiness: float = 0.5
    """Appendix C.1: tau_J = 0.5."""
    tau_difficulty: float | None = None
    """Table 8: tau_D in nats per token; measured on this model's hard problems when not given."""
    without: tuple[Operation, ...] = ()
    """Operations to leave out (Table 2): a step is then kept as it is, and adds no local sample (ambiguity A55)."""


@dataclass(frozen=True)
class ReadingsConfig:
    """Four places where the paper can be read in two ways and the result may depend on which one is taken.

    The defaults have the better ground in its text (docs/ambiguities.md); `--experiment readings` measures the others.
    """

    scores_after: ScoresAfter = "original"
    """What stands before a step when its jumpiness and difficulty are measured: the trace's own steps (Eq. 6), or the
    processed ones of Algorithm 1's line 9 (ambiguity A14)."""
    local_samples: LocalSamples = "continuation"
    """A local sample continues the assistant's own words, as in Eq. 8, or is a turn of its own, with a prompt that
    asks for the next step (ambiguity A20)."""
    later_sft: LaterSFT = "union"
    """From iteration 2 on: one shuffled union of Acquisition and Recycled Set (Eqs. 20, 21), or phases with the
    Recycled Set last (ambiguity A29)."""
    sft_mean: SFTMean = "responses"
    """Eq. 21's mean over responses of each one's mean over tokens, or one mean over all tokens of a batch
    (ambiguity A31). With `--equations verl` it is over tokens in either case."""


@dataclass(frozen=True)
class RecyclingConfig:
    """Section 3.3 and Appendix C.2."""

    tau_length: float | None = None
    """Table 9: tau_l, mean tokens of the teacher's traces on hard problems; measured when not given."""
    tau_steps: float | None = None
    """Table 9: tau_s, mean steps of the teacher's traces on hard problems; measured when not given."""
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Appendix C.2: lambda_l, lambda_s, lambda_f, which sum to 3."""


@dataclass(frozen=True)
class SFTConfig:
    """Table 5."""

    batch_size: int = 8
    """Table 5: train batch size 8."""
    max_tokens_per_batch: int = 1536
    """Table 5: max token length per GPU 1536, the budget of one forward (dynamic batch size, ambiguity A38)."""
    max_length: int = 1536
    """Table 5: right truncation; longer samples are cut here and counted (ambiguity A38)."""
    epochs: int = 1
    """Table 5: 1 epoch, for each phase of the curriculum (ambiguity A30)."""
    lr: float = 2e-5
    """Table 5: learning rate 2e-5."""
    warmup_ratio: float = 0.2
    """Table 5: warm-up ratio 0.2."""
    min_lr_ratio: float = 0.1
    """Table 5: minimum LR ratio 0.1 of the cosine schedule."""
    weight_decay: float = 0.1
    """Table 5: weight decay 0.1."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Table 5: Adam betas (0.9, 0.95)."""
    max_grad_norm: float = 1.0
    """Table 5: gradient clipping 1.0."""
    save_every: int = 100
    """Table 5: save frequency, in optimizer steps. An interrupted phase goes on from there."""


@dataclass(frozen=True)
class GRPOConfig:
    """Table 6."""

    batch_size: int = 16
    """Table 6: train batch size 16, in prompts."""
    mini_batch_size: int = 8
    """Table 6: PPO mini-batch size 8, in prompts; 16 / 8 = two updates for each rollout batch."""
    num_rollouts: int = 8
    """Table 6: G = 8 rollout samples for each prompt; also the rollouts of the filter (Eq. 14, ambiguity A24)."""
    temperature: float = 0.7
    """Table 6: sampling temperature 0.7."""
    top_p: float = 0.9
    """Table 6: top-p 0.9."""
    max_new_tokens: int = 1024
    """Table 6: response length 1024."""
    epochs: int = 1
    """Table 6: 1 epoch over the Consolidation Set."""
    lr: float = 1e-6
    """Table 6: actor learning rate 1e-6, constant (ambiguity A40)."""
    weight_decay: float = 0.01
    """verl's default; the paper names none (ambiguity A40)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """verl's default; the paper names none (ambiguity A40)."""
    clip_eps: float = 0.2
    """Eq. 25's eps_c. Table 6 calls 0.2 "gradient clipping ratio" (ambiguity A35)."""
    kl_coef: float = 0.001
    """Table 6: KL coefficient, beta of Eq. 27."""
    advantage_eps: float = 1e-6
    """Eq. 23's epsilon (ambiguity A32)."""
    max_grad_norm: float = 1.0
    """verl's default for the gradient norm (ambiguity A35)."""
    exclude_all_zero: bool = True
    """Table 6: reward filtering, all-zero reward (Eq. 14). Without it GRPO has all problems (Table 3, first row)."""
    max_tokens_per_batch: int = 4096
    """Tokens in one forward of the trainer: Table 6's 2 sequences of 1024 + 1024. It changes memory and speed only."""
    save_every: int = 100
    """Optimizer state is saved every N rollout batches; an interrupted stage goes on from there."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Section 4.1 and Appendix A.1."""

    max_new_tokens: int = 1024
    """Table 6's response length."""
    pass_samples: int = 64
    """Appendix A.1: 64 sampled responses for pass@8, on the in-domain benchmark; 0 leaves pass@8 out."""
    temperature: float = 0.7
    """Table 6's sampling temperature, for pass@8 (accuracy is greedy; ambiguity A49)."""
    top_p: float = 0.9
    """Table 6's top-p, for pass@8."""


@dataclass(frozen=True)
class MotivationConfig:
    """Appendix A.1, with `--experiment motivation`."""

    budgets: tuple[int, ...] = (200_000, 400_000, 600_000, 800_000, 1_000_000)
    """Appendix A.1: supervised tokens of each SFT."""
    num_samples: int = 64
    """Appendix A.1: responses to each question, for pass@8."""
    test_limit: int | None = None
    """Take only the first N problems of the in-domain benchmark."""


@dataclass(frozen=True)
class Config:
    """A run of the whole method."""

    seed: int = 1111
    """Table 5: seed 1111. Every random choice of the run follows from it."""
    iterations: int = 2
    """Section 4.2: 2 SFT-then-RL iterations (Table 11 tries 4)."""
    equations: Equations = "paper"
    """`verl`: in training, what verl computes in place of the paper's equations, all of it together: token means, a
    second clip, a clamped KL term, its GSM8K scorer, its schedule and its SFT mask (docs/peers.md). Evaluations are
    judged as ever."""
    processes: int | None = None
    """How many processes the launch must have; another number is refused. Whatever there is when not given."""
    sampler: Literal["hf", "vllm"] = "hf"
    """Where responses come from: the sampler that runs everywhere, or vLLM."""
    sampler_rows: int = 512
    """Responses sampled side by side. It changes memory and speed."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    difficulty: DifficultyConfig = field(default_factory=DifficultyConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    readings: ReadingsConfig = field(default_factory=ReadingsConfig)
    recycling: RecyclingConfig = field(default_factory=RecyclingConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    motivation: MotivationConfig = field(default_factory=MotivationConfig)


# A model of 0.2 million parameters takes larger steps over fewer problems than one of 500 million. The sizes are chosen
# for three minutes on a laptop, not for the result (docs/offline_world.md).
TINY = Config(
    model=ModelConfig(path="offline"),
    teacher=TeacherConfig(kind="symbolic"),
    data=DataConfig(train="offline", limit=320, tests=("offline",), test_limit=100),
    difficulty=DifficultyConfig(num_samples=16, max_new_tokens=256),
    sft=SFTConfig(max_tokens_per_batch=4096, max_length=1024, lr=2e-4, save_every=20),
    grpo=GRPOConfig(lr=1e-4, max_new_tokens=256, save_every=5),
    evaluation=EvaluationConfig(max_new_tokens=256, pass_samples=8),
    motivation=MotivationConfig(budgets=(3_000, 6_000, 9_000, 12_000, 15_000), test_limit=50),
)


PAPERS_DATA = DataConfig(train="openai/gsm8k", tests=("gsm8k_platinum", "mawps", "svamp", "math500", "logiqa"))
QWEN = Config(
    sampler="vllm",
    model=ModelConfig("Qwen/Qwen2.5-0.5B-Instruct", packing=True),
    data=PAPERS_DATA,
    bridge=BridgeConfig(tau_difficulty=0.99),
    recycling=RecyclingConfig(tau_length=242.98, tau_steps=7.36),
)
PRESETS = {
    "tiny": TINY,
    "qwen2.5-0.5b": QWEN,
    "llama3.2-1b": Config(
        sampler="vllm",
        model=ModelConfig("meta-llama/Llama-3.2-1B-Instruct", packing=True),
        data=PAPERS_DATA,
        bridge=BridgeConfig(tau_difficulty=1.26),
        recycling=RecyclingConfig(tau_length=287.94, tau_steps=13.67),
    ),
    "verl": replace(QWEN, equations="verl"),
}
# What changes where, when, in how much memory and at what price a run is made. Its result does not follow from them
# (a sum is rounded otherwise at most), so that they may change while the run goes on.
FREE = (
    "processes",
    "sampler_rows",
    "model.packing",
    "model.activation_checkpointing",
    "vllm.gpu_memory_utilization",
    "sft.max_tokens_per_batch",
    "grpo.max_tokens_per_batch",
    *(f"teacher.{name}" for name in ("concurrency", "timeout", "retries", "max_calls", "max_tokens", "max_rejected")),
    "teacher.input_price",
    "teacher.output_price",
)


def flatten(config: Config) -> dict[str, object]:
    """Every setting under its command-line name: `grpo.kl_coef` -> 0.001."""
    flat: dict[str, object] = {}
    for name, value in asdict(config).items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def method_settings(config: Config) -> dict[str, object]:
    """What the method itself can read: all but the motivating experiment's own settings."""
    return {name: value for name, value in flatten(config).items() if not name.startswith("motivation.")}


# What a number must be, by the last part of its name; every whole number but the seed must be at least 1.
ABOVE_0 = ("temperature", "timeout", "lr", "max_grad_norm", "clip_eps", "advantage_eps", "tau_length", "tau_steps")
AT_LEAST_0 = (
    *("weight_decay", "kl_coef", "tau_importance", "tau_jumpiness", "tau_difficulty", "seed", "pass_samples"),
    *("retries", "input_price", "output_price"),
)
SHARES = ("warmup_ratio", "min_lr_ratio", "max_rejected")


def check(config: Config) -> None:
    """Settings that cannot be, or contradict each other, found before anything is loaded. Raises ValueError."""
    types = _declared_types(config)
    for name, value in flatten(config).items():
        option, last = f"--{name.replace('_', '-')}", name.rsplit(".", 1)[-1]
        values = value if isinstance(value, tuple) else (value,)
        numbers = [number for number in values if isinstance(number, int | float)]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{option} must be a finite number, got {value}")
        if last in ABOVE_0 and not all(number > 0 for number in numbers):
            raise ValueError(f"{option} must be above 0, got {value}")
        if last in AT_LEAST_0 and not all(number >= 0 for number in numbers):
            raise ValueError(f"{option} must be at least 0, got {value}")
        if last in SHARES and not all(0 <= number <= 1 for number in numbers):
            raise ValueError(f"{option} must be from 0 to 1, got {value}")
        if last in ("top_p", "gpu_memory_utilization") and not all(0 < number <= 1 for number in numbers):
            raise ValueError(f"{option} must be above 0 and at most 1, got {value}")
        if last == "betas" and not all(0 <= number < 1 for number in numbers):
            raise ValueError(f"{option} must be at least 0 and below 1, got {value}")
        counts = types[name] in (int, int | None, tuple[int, ...]) and last not in AT_LEAST_0
        if counts and not all(number >= 1 for number in numbers):
            raise ValueError(f"{option} must be at least 1, got {value}")
    if not config.model.path:
        raise ValueError("--model.path must name a checkpoint folder, a model of the hub or `offline`, got nothing")
    _check_together(config)


def _declared_types(config: Config) -> dict[str, object]:
    types: dict[str, object] = {}
    for outer in fields(config):
        if is_dataclass(outer.type):
            types |= {f"{outer.name}.{inner.name}": inner.type for inner in fields(outer.type)}
        else:
            types[outer.name] = outer.type
    return types


def _check_together(config: Config) -> None:
    weights, grpo, samples = config.recycling.weights, config.grpo, config.evaluation.pass_samples
    if min(weights) < 0 or abs(sum(weights) - 3) > 1e-9:
        raise ValueError(f"--recycling.weights must be at least 0 and sum to 3 (Eq. 30), got {weights}")
    if grpo.num_rollouts < 2:
        raise ValueError(f"--grpo.num-rollouts must be at least 2 (Eq. 23 needs a deviation), got {grpo.num_rollouts}")
    if 0 < samples < 8:
        raise ValueError(f"--evaluation.pass-samples must be 0 (no pass@8) or at least 8, got {samples}")
    budgets = config.motivation.budgets
    if not budgets or len(set(budgets)) < len(budgets):
        raise ValueError(f"--motivation.budgets takes different budgets, at least one, got {budgets}")
    if config.motivation.num_samples < 8:
        raise ValueError(f"--motivation.num-samples must be at least 8 (pass@8), got {config.motivation.num_samples}")
    if grpo.mini_batch_size > grpo.batch_size:
        raise ValueError(
            f"--grpo.mini-batch-size {grpo.mini_batch_size} is larger than --grpo.batch-size {grpo.batch_size}; "
            "a mini-batch is a part of the rollout batch"
        )
