"""What a model takes of a GPU's memory, from its shape alone: for `--dry-run`, before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig

UNITS = {"GiB": 2**30, "MiB": 2**20}
CHUNK_OF_LOGITS = 256  # rows of the vocabulary's table that exist at a time, forward and backward (paper.tokens)


@dataclass(frozen=True)
class Shape:
    """A decoder of the Qwen2 and Llama family; head and embedding are tied."""

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    words: int
    head_width: int = 0

    @property
    def parameters(self) -> int:
        """How many weights; biases and norms, about one in a thousand, left out."""
        head = self.head_width or self.width // self.heads
        attention = 2 * self.width * head * (self.heads + self.key_heads)
        return self.layers * (attention + 3 * self.width * self.inner) + self.words * self.width


# So that the paper's presets can be planned without a network.
SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(24, 896, 4864, 14, 2, 151_936),
    "meta-llama/Llama-3.2-1B-Instruct": Shape(16, 2048, 8192, 32, 8, 128_256, 64),
}


def shape_of(path: str) -> Shape | None:
    """The shape of a checkpoint folder, or of a model that we know; None for one that is not here yet.

    Raises:
        ValueError: a folder without a readable configuration.
    """
    if path in SHAPES:
        return SHAPES[path]
    if not Path(path).is_dir():
        return None
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the configuration of the model in {path!r} ({error})") from error
    return Shape(
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size,
        config.to_dict().get("head_dim") or 0,
    )


def training_bytes(shape: Shape, processes: int) -> int:
    """Float32 weights, gradients and two Adam moments, sharded: 16 bytes a parameter over the processes."""
    return 16 * shape.parameters // processes


def whole_bytes(shape: Shape) -> int:
    """The reference policy in float32, whole in each process: 4 bytes a parameter."""
    return 4 * shape.parameters


def activation_bytes(shape: Shape, tokens: int, checkpointed: bool) -> int:
    """What one forward of so many tokens keeps for its backward, and the head's chunk of logits.

    Autocast's bfloat16 copies of the weights, whole in each process, are kept for it too: 2 bytes a parameter. About 34
    values of the width a token and layer in bfloat16 (Korthikanti et al. 2022, without the attention table, which is
    never made), with the inner layer's own size; checkpointed, one value a layer and a single layer's rest.
    """
    values = 10 * shape.width + 4 * shape.inner
    kept = shape.layers * shape.width + values if checkpointed else shape.layers * values
    return 2 * tokens * kept + 2 * shape.parameters + 3 * 4 * CHUNK_OF_LOGITS * shape.words


def in_units(shape: Shape, size: int) -> str:
    """A size as text, in the unit that suits the model."""
    unit = "GiB" if shape.parameters > 50e6 else "MiB"
    return f"{size / UNITS[unit]:.1f} {unit}"


def describe_memory(shape: Shape, sft_tokens: int, grpo_tokens: int, checkpointed: bool) -> str:
    """A row for each number of processes, for one of them; what the sampler takes comes on top."""
    lines = [
        f"{'processes':>9}{'weights, gradients, Adam':>26}{'reference':>11}{'SFT forward':>13}{'GRPO forward':>14}"
    ]
    for processes in (1, 2, 4, 8):
        sizes = (
            training_bytes(shape, processes),
            whole_bytes(shape),
            activation_bytes(shape, sft_tokens, checkpointed),
            activation_bytes(shape, grpo_tokens, checkpointed),
        )
        cells = [f"{in_units(shape, size):>{width}}" for size, width in zip(sizes, (26, 11, 13, 14), strict=True)]
        lines.append(f"{processes:>9}{''.join(cells)}")
    return "\n".join(lines)
