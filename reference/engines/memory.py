"""What a model takes of a GPU's memory, from its shape alone: for `--dry-run`, before anything is loaded."""

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

UNITS = {"GiB": 2**30, "MiB": 2**20}
CHUNK_OF_LOGITS = 256  # rows of the vocabulary's table that exist at a time, forward and backward (paper.tokens)


@dataclass(frozen=True)
class Shape:
    """A decoder of the Qwen2 and Llama family. `tied`: the head is the embedding."""

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    words: int
    head_width: int = 0
    tied: bool = True

    @property
    def parameters(self) -> int:
        """How many weights; biases and norms, about one in a thousand, left out."""
        head = self.head_width or self.width // self.heads
        attention = 2 * self.width * head * (self.heads + self.key_heads)
        tables = self.words * self.width * (1 if self.tied else 2)
        return self.layers * (attention + 3 * self.width * self.inner) + tables


# So that the paper's presets can be planned without a network.
SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(24, 896, 4864, 14, 2, 151_936),
    "meta-llama/Llama-3.2-1B-Instruct": Shape(16, 2048, 8192, 32, 8, 128_256, 64),
}


def shape_of(path: str) -> Shape | None:
    """The shape of a checkpoint folder, or of a model that we know; None for one that is not here yet.

    Raises:
        ValueError: as `sizes_of`.
    """
    if path in SHAPES:
        return SHAPES[path]
    if not Path(path).is_dir():
        return None
    layers, width, inner = sizes_of(path, "num_hidden_layers", "hidden_size", "intermediate_size")
    heads, key_heads, words = sizes_of(path, "num_attention_heads", "num_key_value_heads", "vocab_size")
    rest = AutoConfig.from_pretrained(path).to_dict()
    tied = rest.get("tie_word_embeddings", True)
    return Shape(layers, width, inner, heads, key_heads, words, rest.get("head_dim") or 0, tied)


def sizes_of(checkpoint: Path | str, *names: str) -> list[int]:
    """These fields of a checkpoint's configuration.

    Raises:
        ValueError: there is no configuration to read, or it has no such size.
    """
    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ValueError(f"cannot read the configuration of the model in {str(checkpoint)!r} ({error})") from error
    try:
        return [attrgetter(name)(config) for name in names]
    except AttributeError as error:
        raise ValueError(
            f"the configuration of the model in {str(checkpoint)!r}, a {config.model_type}, has no size of this name "
            f"({error}); give --model.path a decoder of the Qwen2 and Llama family"
        ) from error


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
