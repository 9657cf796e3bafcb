"""Log-probabilities of tokens, and means over them: what Eqs. 8, 21, 24, 26 and 27 are made of.

Shapes: B sequences, T positions, N tokens in a row, D hidden size, V words. Log-probabilities in nats.
"""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

# Below this many words the whole table of logits is small, and chunks only cost time.
SMALL_VOCABULARY = 8192
CHUNK = 256


def token_logprobs(logits_BTV: torch.Tensor, targets_BT: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """log softmax(z / temperature) at the target ids: [..., V], [...] -> [...]; in float32 at least.

    The temperature is the sampler's, so that this is the policy that was sampled from (ambiguity A36).
    """
    logits_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32)) / temperature
    return torch.log_softmax(logits_BTV, dim=-1).gather(-1, targets_BT.unsqueeze(-1)).squeeze(-1)


def head_logprobs(
    hidden_ND: torch.Tensor, head_VD: torch.Tensor, targets_N: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """`token_logprobs(hidden @ head.T, targets)` without the [N, V] table: [N, D], [V, D], [N] -> [N].

    Only `CHUNK` rows of logits exist at a time, in the forward and in the backward. In float32 at least, also under
    autocast: a log-probability must not depend on how many rows it was computed with. Call it inside the model's
    forward: under FSDP the head's weight exists nowhere else.
    """
    with torch.autocast(hidden_ND.device.type, enabled=False):
        precise = torch.promote_types(hidden_ND.dtype, torch.float32)
        hidden_ND, head_VD = hidden_ND.to(precise), head_VD.to(precise)
        if head_VD.shape[0] <= SMALL_VOCABULARY or len(targets_N) <= CHUNK:
            return token_logprobs(hidden_ND @ head_VD.T, targets_N, temperature)
        if hasattr(F, "linear_cross_entropy"):  # torch >= 2.13
            options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK)
            scaled_ND = hidden_ND / temperature
            return -F.linear_cross_entropy(scaled_ND, head_VD, targets_N, reduction="none", options=options)
        return _checkpointed_head_logprobs(hidden_ND, head_VD, targets_N, temperature)


def _checkpointed_head_logprobs(
    hidden_ND: torch.Tensor, head_VD: torch.Tensor, targets_N: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The same for older torch: each chunk's logits are thrown away and computed again in the backward."""

    def chunk_logprobs(rows_CD: torch.Tensor, targets_C: torch.Tensor) -> torch.Tensor:
        return token_logprobs(rows_CD @ head_VD.T, targets_C, temperature)

    chunks = zip(hidden_ND.split(CHUNK), targets_N.split(CHUNK), strict=True)
    return torch.cat([checkpoint(chunk_logprobs, rows, targets, use_reentrant=False) for rows, targets in chunks])


@torch.no_grad()
def head_statistics(
    hidden_ND: torch.Tensor, head_VD: torch.Tensor, targets_N: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`head_logprobs` at the temperature, `token_entropy` at the temperature, and `head_logprobs` at 1: [N] each.

    `CHUNK` rows of logits serve all three.
    """
    with torch.autocast(hidden_ND.device.type, enabled=False):
        precise = torch.promote_types(hidden_ND.dtype, torch.float32)
        head_DV = head_VD.to(precise).T
        found = []
        for rows_CD, targets_C in zip(hidden_ND.split(CHUNK), targets_N.split(CHUNK), strict=True):
            logits_CV = rows_CD.to(precise) @ head_DV
            plain_C = token_logprobs(logits_CV, targets_C)
            found.append(
                (token_logprobs(logits_CV, targets_C, temperature), token_entropy(logits_CV, temperature), plain_C)
            )
        logprobs_N, entropy_N, plain_N = (torch.cat(parts) for parts in zip(*found, strict=True))
        return logprobs_N, entropy_N, plain_N


def token_entropy(logits_NV: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """-sum_v p_v log p_v of softmax(z / temperature): [..., V] -> [...], in nats. A diagnostic, not in any loss."""
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    logp_NV = torch.log_softmax(logits_NV / temperature, dim=-1)
    return -(logp_NV.exp() * logp_NV).sum(-1)


def mean_over_tokens(x_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """(1/|o_i|) sum_t x_{i,t} over the tokens where the mask is 1: [B, T], [B, T] -> [B].

    Numerator and denominator use the same mask. A row without tokens gives 0 and keeps the graph; what stands at masked
    positions does not matter, not even NaN.
    """
    mask_BT = mask_BT.to(torch.bool)
    total_B = x_BT.masked_fill(~mask_BT, 0.0).sum(dim=1)
    return total_B / mask_BT.sum(dim=1).clamp(min=1)
