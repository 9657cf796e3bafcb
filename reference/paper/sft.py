"""Appendix B.3, the supervised objective (Eq. 21).

verl and TRL average over all supervised tokens of a batch, so that a long response outvotes a short one; Eq. 21 takes
each response's own mean first, and so do we (ambiguity A31).

Shapes: B samples, T positions, right-padded.
"""

import torch

from reference.paper.tokens import mean_over_tokens


def sft_loss(logprobs_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Eq. (21): L_SFT = -E_(x,y)[ (1/|y|) sum_k log pi_theta(y_k | x, y_<k) ], [B, T], [B, T] -> scalar.

    In nats per token. `mask_BT` is 1 on y (the assistant's tokens and the end of its turn) and 0 elsewhere.
    """
    return -mean_over_tokens(logprobs_BT, mask_BT).mean()
