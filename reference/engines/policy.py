"""The student pi_theta: a causal language model whose forward gives token log-probabilities.

Right padding needs no attention mask: a causal model never looks right, so that the padding behind a sequence changes
nothing before it. The vocabulary head runs on supervised positions only, and what lies behind the last of them is not
computed where sequences are packed.

Shapes: B sequences, T positions, N supervised tokens, V words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from reference.engines.artifacts import CHECKPOINT_FILES
from reference.engines.distributed import whole
from reference.paper.tokens import head_logprobs, head_statistics


def checkpoint_folder(path: str) -> Path:
    """A checkpoint folder as it is; the name of a model on the Hugging Face hub as the folder it is downloaded to.

    Raises:
        ValueError: neither a folder nor a model that can be downloaded.
    """
    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(snapshot_download(path, allow_patterns=[f"*{suffix}" for suffix in CHECKPOINT_FILES]))
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(
            f"there is no folder {path!r}, and no such model could be downloaded ({reason}); "
            "give --model.path a checkpoint folder or a hub name"
        ) from error


def load_causal_lm(checkpoint: Path | str, dtype: torch.dtype) -> PreTrainedModel:
    """A model from a checkpoint directory or a hub name.

    Raises:
        ValueError: there is no model in it, weights are missing, or it is built in a way that we do not know.
    """
    try:
        if (Path(checkpoint) / "generation_config.json").exists():
            GenerationConfig.from_pretrained(checkpoint)  # where it is damaged, the model would load without it
        found: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(
            f"cannot load a model from {str(checkpoint)!r}: expected a folder with config.json and safetensors, "
            f"or the name of a model that can be downloaded ({error})"
        ) from error
    model, loaded = found
    if loaded["missing_keys"]:
        raise ValueError(f"the weights in {str(checkpoint)!r} lack {sorted(loaded['missing_keys'])[:3]}; complete them")
    if not hasattr(model, "model") or not hasattr(model.model, "layers"):
        raise ValueError(
            f"{str(checkpoint)!r} holds a {type(model).__name__}; expected decoder layers under `model.layers` and a "
            "vocabulary head, as Qwen2 and Llama have them"
        )
    return model


def copy_weights(model: PreTrainedModel, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Copy named weights into the model in place, one at a time. A tied head comes with the embedding it is tied to."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights:
            own.pop(name).copy_(weight)
    assert not own, f"weights that were not given: {sorted(own)}"


@dataclass(frozen=True)
class Predicted:
    """What the policy says of each supervised token, [B, T] each, 0 at all other places; in nats.

    `logprobs` are those of the sampling temperature, the policy that was sampled from (ambiguity A36). The others are
    there where they were measured: the entropy of the whole prediction, and the log-probabilities at temperature 1.
    """

    logprobs: torch.Tensor
    entropy: torch.Tensor | None = None
    plain_logprobs: torch.Tensor | None = None


class Policy(nn.Module):
    """Wraps the language model, so that the head is used inside this module's own forward (FSDP needs that).

    `packing` puts a batch's sequences behind one another in one row. Positions begin anew with each, which keeps them
    from seeing each other.
    """

    def __init__(self, model: PreTrainedModel, packing: bool = False):
        super().__init__()
        self.model = model
        self.packing = packing

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers: the units that FSDP shards."""
        return self.model.model.layers

    def forward(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, temperature: float = 1.0, measure: bool = False
    ) -> Predicted:
        """log pi_theta(id_t | id_<t) where the mask is 1: [B, T], [B, T] -> [B, T].

        `mask_BT[:, 0]` must be 0: nothing predicts the first token. `measure` adds the diagnostics; it is meant for
        `torch.no_grad`.
        """
        mask_BT = mask_BT.to(torch.bool)
        hidden_ND = self._hidden_before(ids_BT, mask_BT)
        head_VD = self.model.get_output_embeddings().weight

        def at_mask(values_N: torch.Tensor) -> torch.Tensor:
            return values_N.new_zeros(ids_BT.shape).masked_scatter(mask_BT, values_N)

        if measure:
            return Predicted(*map(at_mask, head_statistics(hidden_ND, head_VD, ids_BT[mask_BT], temperature)))
        return Predicted(at_mask(head_logprobs(hidden_ND, head_VD, ids_BT[mask_BT], temperature)))

    def _hidden_before(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """The hidden states that predict the supervised tokens, those of the positions before them: -> [N, D]."""
        predicts_BT = mask_BT.roll(-1, dims=1)  # position t-1 predicts token t
        if not self.packing:
            return self.model.model(input_ids=ids_BT, use_cache=False).last_hidden_state[predicts_BT]
        at_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
        needed_BT = at_BT <= (at_BT * predicts_BT).amax(dim=1, keepdim=True)  # nothing behind it has any effect
        packed = self.model.model(
            input_ids=ids_BT[needed_BT][None], position_ids=at_BT[needed_BT][None], use_cache=False
        )
        return packed.last_hidden_state[0][predicts_BT[needed_BT]]

    def named_weights(self) -> Iterable[tuple[str, torch.Tensor]]:
        """The whole weights under the names they have in a checkpoint, one at a time, for `Sampler.sync`.

        Sharded ones are put together on the way: every process has to ask for all of them.
        """
        for name, weight in self.model.named_parameters():
            yield name, whole(weight.detach())
