"""Appendix B.3, the GRPO objective (Eqs. 22-28). Eq. 22, the sampling, is `difficulty.sample_responses`.

Where the frameworks differ: verl and TRL average over the tokens of the whole batch by default, verl clips once more
at ratio 3 for negative advantages and clamps the KL term. Eqs. 25 to 27 do none of this, and neither do we
(ambiguities A31, A33, A34).

Shapes: N prompts, G responses each, B = N * G responses, T positions, right-padded. Log-probabilities in nats.
"""

import torch

from reference.paper.tokens import mean_over_tokens


def group_advantages(rewards_NG: torch.Tensor, eps: float = 1e-6, correction: int = 1) -> torch.Tensor:
    """Eq. (23): A_i = (r_i - mean(r)) / (std(r) + eps), [N, G] -> [N, G], each row for itself.

    A row of equal rewards gives zeros. `correction=1` is the sample standard deviation (ambiguity A32).

    Raises:
        ValueError: fewer than two responses in a group: their deviation is undefined.
    """
    if rewards_NG.dim() != 2 or rewards_NG.shape[1] < 2:
        raise ValueError(f"advantages need rewards of shape [N, G] with G >= 2, got {list(rewards_NG.shape)}")
    mean_N1 = rewards_NG.mean(dim=1, keepdim=True)
    std_N1 = rewards_NG.std(dim=1, correction=correction, keepdim=True)
    return (rewards_NG - mean_N1) / (std_N1 + eps)


def policy_ratio(logprobs_BT: torch.Tensor, old_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """Eq. (24): rho_{i,t} = pi_theta(o_t | q, o_<t) / pi_old(o_t | q, o_<t), [B, T] -> [B, T].

    The paper calls it rho, as it does the rate of Eq. 3 (ambiguity A46).
    """
    return torch.exp(logprobs_BT - old_logprobs_BT)


def clipped_term(ratio_BT: torch.Tensor, advantages_B: torch.Tensor, clip_eps: float = 0.2) -> torch.Tensor:
    """Eq. (25): min(rho A, clip(rho, 1 - eps_c, 1 + eps_c) A), [B, T], [B] -> [B, T]; to be maximised.

    A minimum for both signs of A: a bad response whose ratio grew keeps its gradient. eps_c: Table 6 (ambiguity A35).
    """
    advantages_B1 = advantages_B.unsqueeze(1)
    clipped_BT = ratio_BT.clamp(1 - clip_eps, 1 + clip_eps)
    return torch.minimum(ratio_BT * advantages_B1, clipped_BT * advantages_B1)


def low_variance_kl(logprobs_BT: torch.Tensor, ref_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """Eq. (26): D_KL[pi_theta || pi_ref] by the estimator exp(d) - d - 1, d = log pi_ref - log pi_theta (Table 6).

    [B, T] -> [B, T], never negative. On tokens drawn from pi_theta its mean is the KL divergence of Eq. 26, while its
    gradient is that of KL(pi_ref || pi_theta) (ambiguity A33).
    """
    delta_BT = ref_logprobs_BT - logprobs_BT
    return torch.expm1(delta_BT) - delta_BT


def grpo_objective(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    ref_logprobs_BT: torch.Tensor,
    advantages_B: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    clip_eps: float = 0.2,
    kl_coef: float = 0.001,
) -> torch.Tensor:
    """Eq. (27): J = E[ (1/G) sum_i (1/|o_i|) sum_t (L_CLIP - beta L_KL) ], [B, T] x 3, [B], [B, T] -> scalar.

    The inner brackets are ours (ambiguity A33). All groups have G responses, so that the mean over prompts and
    responses is one mean over B. `mask_BT` is 1 on the tokens of o_i, its end of turn included; elsewhere the
    log-probabilities must be finite. beta = `kl_coef`, Table 6.
    """
    clip_BT = clipped_term(policy_ratio(logprobs_BT, old_logprobs_BT), advantages_B, clip_eps)
    kl_BT = low_variance_kl(logprobs_BT, ref_logprobs_BT)
    return mean_over_tokens(clip_BT - kl_coef * kl_BT, mask_BT).mean()


def grpo_loss(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    ref_logprobs_BT: torch.Tensor,
    advantages_B: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    clip_eps: float = 0.2,
    kl_coef: float = 0.001,
) -> torch.Tensor:
    """Eq. (28): L_GRPO = -J_GRPO; arguments and shapes as `grpo_objective`."""
    return -grpo_objective(
        logprobs_BT, old_logprobs_BT, ref_logprobs_BT, advantages_B, mask_BT, clip_eps=clip_eps, kl_coef=kl_coef
    )


def is_clipped(ratio_BT: torch.Tensor, advantages_B: torch.Tensor, clip_eps: float = 0.2) -> torch.Tensor:
    """Where Eq. 25's minimum is the clipped side, so that the token has no gradient: [B, T], [B] -> bool [B, T]."""
    too_good_BT = (ratio_BT > 1 + clip_eps) & (advantages_B > 0).unsqueeze(1)
    too_bad_BT = (ratio_BT < 1 - clip_eps) & (advantages_B < 0).unsqueeze(1)
    return too_good_BT | too_bad_BT
