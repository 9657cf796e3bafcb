"""pass@k, the metric of Figure 1 and Table 2: the unbiased estimator of Chen et al. (2021).

verl reports a bootstrap best-of-N instead, which is biased low; the paper names no estimator (ambiguity A50).
"""

from fractions import Fraction
from math import comb


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that k of the n samples, drawn without replacement, hold a correct one.

    The paper samples n = 64 and reports k = 8 (Appendix A.1).

    Raises:
        ValueError: not 0 <= num_correct <= num_samples, or not 1 <= k <= num_samples.
    """
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct must lie in [0, {num_samples}], got {num_correct}")
    if not 1 <= k <= num_samples:
        raise ValueError(f"k must lie in [1, {num_samples}] (pass@k needs at least k samples), got {k}")
    return float(1 - Fraction(comb(num_samples - num_correct, k), comb(num_samples, k)))
