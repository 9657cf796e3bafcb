"""Section 3.1: how difficult a problem is for the model at hand (Eqs. 1-3).

The paper calls Eq. 3's rate rho, and Eq. 24's policy ratio rho too; in this code they are `accuracy` and `ratio`.
"""

from collections.abc import Sequence

from reference.interfaces import Sampler, Sampling
from reference.records import Completion, DifficultyGroup

SIMPLE_FROM = 0.75
MEDIUM_FROM = 0.25


def sample_responses(
    sampler: Sampler, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
) -> list[list[Completion]]:
    """Eqs. (1) and (22): {o_i} ~ pi_theta(. | q), one response for each seed; n = 64 for difficulty, G = 8 for GRPO.

    Prompts are token ids; the paper gives no temperature for Eq. 1, we use Table 6's 0.7 and top-p 0.9 (ambiguity A12).
    """
    return sampler.sample(prompts, seeds, sampling)


def correctness_rate(rewards: Sequence[float]) -> float:
    """Eq. (3): rho(q) = (1/n) sum_i r_i, [n] -> a number in [0, 1].

    Raises:
        ValueError: no rewards, or one that is neither 0 nor 1.
    """
    if len(rewards) == 0:
        raise ValueError("a correctness rate needs at least one reward, got none")
    if any(reward not in (0, 1) for reward in rewards):
        raise ValueError(f"rewards must be 0 or 1 (Eq. 2), got {list(rewards)}")
    return float(sum(rewards)) / len(rewards)


def difficulty_group(rate: float) -> DifficultyGroup:
    """Section 3.1: simple on [0.75, 1], medium on [0.25, 0.75), hard on [0, 0.25).

    Appendix A.1 puts 0.75 itself into medium; Section 3.1 defines the method, so it wins (ambiguity A11).

    Raises:
        ValueError: the rate is not in [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a correctness rate lies in [0, 1], got {rate}")
    if rate >= SIMPLE_FROM:
        return DifficultyGroup.SIMPLE
    return DifficultyGroup.MEDIUM if rate >= MEDIUM_FROM else DifficultyGroup.HARD
