"""The equations once more, in plain Python: floats, loops, no tensor, nothing imported from the rest of this project.

`make_vectors.py` writes down what these functions give. They are slow and say the same thing twice on purpose: where
`reference/paper/` and this file agree, two texts read the paper in the same way. Gradients are typed by hand and are
with respect to log pi_theta of each token; tests/conformance/ holds them to finite differences.
"""

import math


def sft_loss(logprobs, mask):
    """Eq. 21 over a batch: {"loss", "gradient"}."""
    loss, gradient = 0.0, []
    for row, row_mask in zip(logprobs, mask, strict=True):
        length = sum(row_mask)
        loss += -math.fsum(x for x, m in zip(row, row_mask, strict=True) if m) / length / len(logprobs)
        gradient.append([-m / length / len(logprobs) for m in row_mask])
    return {"loss": loss, "gradient": gradient}


def group_advantages(rewards, eps):
    """Eq. 23 for each group, with the sample standard deviation."""
    advantages = []
    for group in rewards:
        mean = math.fsum(group) / len(group)
        std = math.sqrt(math.fsum((r - mean) ** 2 for r in group) / (len(group) - 1))
        advantages.append([(r - mean) / (std + eps) for r in group])
    return {"advantages": advantages}


def policy_ratio(logprobs, old_logprobs):
    """Eq. 24."""
    return {"ratio": [[math.exp(a - b) for a, b in zip(*rows, strict=True)] for rows in _pairs(logprobs, old_logprobs)]}


def clipped_term(ratio, advantages, clip_eps):
    """Eq. 25: the value, and its derivative with respect to the ratio."""
    values, gradient = [], []
    for row, advantage in zip(ratio, advantages, strict=True):
        values.append([])
        gradient.append([])
        for rho in row:
            inside = min(max(rho, 1 - clip_eps), 1 + clip_eps)
            values[-1].append(min(rho * advantage, inside * advantage))
            gradient[-1].append(0.0 if inside * advantage < rho * advantage else advantage)
    return {"values": values, "gradient": gradient}


def low_variance_kl(logprobs, ref_logprobs):
    """Eq. 26's estimator: the value, and its derivative with respect to log pi_theta."""
    values, gradient = [], []
    for rows in _pairs(logprobs, ref_logprobs):
        deltas = [ref - logp for logp, ref in zip(*rows, strict=True)]
        values.append([math.expm1(delta) - delta for delta in deltas])
        gradient.append([-math.expm1(delta) for delta in deltas])
    return {"values": values, "gradient": gradient}


def grpo_loss(logprobs, old_logprobs, ref_logprobs, advantages, mask, clip_eps, kl_coef):
    """Eqs. 27 and 28 over B responses: {"loss", "gradient"}."""
    loss, gradient = 0.0, []
    ratio = policy_ratio(logprobs, old_logprobs)["ratio"]
    clip, kl = clipped_term(ratio, advantages, clip_eps), low_variance_kl(logprobs, ref_logprobs)
    for i, row_mask in enumerate(mask):
        share = 1 / sum(row_mask) / len(mask)
        gradient.append([0.0] * len(row_mask))
        for t, inside in enumerate(row_mask):
            if inside:
                loss -= share * (clip["values"][i][t] - kl_coef * kl["values"][i][t])
                slope = clip["gradient"][i][t] * ratio[i][t] - kl_coef * kl["gradient"][i][t]
                gradient[i][t] = -share * slope
    return {"loss": loss, "gradient": gradient}


def mean_nll(logprobs):
    """Eq. 8 for one step's tokens."""
    return {"difficulty": -math.fsum(logprobs) / len(logprobs)}


def near_miss_score(num_tokens, num_steps, has_answer, tau_length, tau_steps, weights):
    """Eqs. 30 to 33: the three parts and their weighted sum."""
    parts = [min(num_tokens / tau_length, 1.0), min(num_steps / tau_steps, 1.0), 1.0 if has_answer else 0.0]
    return {"parts": parts, "score": math.fsum(w * part for w, part in zip(weights, parts, strict=True))}


def select_near_miss(num_tokens, num_steps, has_answer, tau_length, tau_steps, weights):
    """Eq. 34 over the responses of O^-: the index and the score of the best one, the first on a tie."""
    best, best_score = 0, -1.0
    for index, response in enumerate(zip(num_tokens, num_steps, has_answer, strict=True)):
        score = near_miss_score(*response, tau_length, tau_steps, weights)["score"]
        if score > best_score:
            best, best_score = index, score
    return {"index": best, "score": best_score}


def pass_at_k(num_samples, num_correct, k):
    """Chen et al. 2021, as a product over the k draws."""
    none_right = 1.0
    for draw in range(k):
        none_right *= max(0, num_samples - num_correct - draw) / (num_samples - draw)
    return {"pass_at_k": 1.0 - none_right}


def choose_action(importance, jumpiness, difficulty, tau_importance, tau_jumpiness, tau_difficulty):
    """Algorithm 1, lines 11 to 29."""
    if importance <= tau_importance:
        if jumpiness > tau_jumpiness or difficulty > tau_difficulty:
            return {"action": "drop", "local": False}
        return {"action": "compress", "local": False}
    if jumpiness <= tau_jumpiness and difficulty <= tau_difficulty:
        return {"action": "keep", "local": False}
    if jumpiness > tau_jumpiness:
        return {"action": "expand", "local": difficulty > tau_difficulty}
    return {"action": "localize", "local": True}


def cosine_schedule(step, total_steps, warmup_ratio, min_lr_ratio):
    """Table 5: what the learning rate is multiplied by in step 1, 2, ... total_steps (ambiguity A30)."""
    warmup = max(1, int(warmup_ratio * total_steps))
    if step < warmup:
        return {"scale": step / warmup}
    turn = math.pi * (step - warmup) / max(1, total_steps - warmup)
    return {"scale": (1 + min_lr_ratio) / 2 + (1 - min_lr_ratio) / 2 * math.cos(turn)}


def _pairs(first, second):
    return zip(first, second, strict=True)
