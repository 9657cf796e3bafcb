"""The student pi_theta: a causal language model whose forward gives token log-probabilities.

Right padding needs no attention mask: a causal model never looks right, so that the padding behind a sequence changes
nothing before it. The vocabulary head runs on supervised positions only.

Shapes: B sequences, T positions, N supervised tokens, V words.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from reference.engines.artifacts import CHECKPOINT_FILES
from reference.paper.tokens import head_logprobs, token_entropy


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
        ValueError: there is no model in it, or weights are missing.
    """
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"cannot load a model from {str(checkpoint)!r}: expected a folder with config.json and safetensors, "
            f"or the name of a model that can be downloaded ({error})"
        ) from error
    if loaded["missing_keys"]:
        raise ValueError(f"the weights in {str(checkpoint)!r} lack {sorted(loaded['missing_keys'])[:3]}; complete them")
    return model


def copy_weights(model: PreTrainedModel, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Copy named weights into the model in place, one at a time. A tied head comes with the embedding it is tied to."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights:
            own.pop(name).copy_(weight)
    assert not own, f"weights that were not given: {sorted(own)}"


class Policy(nn.Module):
    """Wraps the language model, so that the head is used inside this module's own forward (FSDP needs that)."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, temperature: float = 1.0, with_entropy: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """log pi_theta(id_t | id_<t) where the mask is 1, and 0 elsewhere: [B, T], [B, T] -> [B, T].

        `mask_BT[:, 0]` must be 0: nothing predicts the first token. The entropy of each such prediction comes second,
        or None; it is meant for `torch.no_grad`.
        """
        hidden_BTD = self.model.model(input_ids=ids_BT, use_cache=False).last_hidden_state
        supervised_BT = mask_BT.to(torch.bool)
        hidden_ND = hidden_BTD[:, :-1][supervised_BT[:, 1:]]  # position t-1 predicts token t
        head_VD = self.model.get_output_embeddings().weight
        found_N = head_logprobs(hidden_ND, head_VD, ids_BT[supervised_BT], temperature)
        logprobs_BT = found_N.new_zeros(ids_BT.shape).masked_scatter(supervised_BT, found_N)
        if not with_entropy:
            return logprobs_BT, None
        entropies = [token_entropy(rows @ head_VD.T, temperature) for rows in hidden_ND.split(256)]
        entropy_BT = found_N.new_zeros(ids_BT.shape).masked_scatter(supervised_BT, torch.cat(entropies))
        return logprobs_BT, entropy_BT

    def named_weights(self) -> Iterable[tuple[str, torch.Tensor]]:
        """The weights under the names they have in a checkpoint, one at a time, for `Sampler.sync`."""
        yield from self.model.named_parameters()
