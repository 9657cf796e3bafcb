"""`--experiment readings`: four places where the paper can be read in two ways, in all 16 combinations.

What differs from the defaults names a combination: `processed+own_turn` has two of the four other readings.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from reference.config import Config, ReadingsConfig

# The other value of each setting, and what it means.
SCORES, LOCAL, LATER, MEAN = "processed", "own_turn", "phases", "tokens"
READINGS = {
    SCORES: "J and D measured after the processed steps",
    LOCAL: "local samples as turns of their own",
    LATER: "later SFT in phases, the Recycled Set last",
    MEAN: "Eq. 21 as one mean over tokens",
}
COMBINATIONS: tuple[tuple[str, ...], ...] = tuple(
    chosen for count in range(1, len(READINGS) + 1) for chosen in combinations(READINGS, count)
)
BEFORE = (SCORES, LOCAL, LATER)  # as version 0.1 of this project read the paper
SFT_AND_AFTER = ("iter1/1_sft/2_bridge", "iter1/2_filter", "iter1/3_grpo", "iter1/4_recycle")


def name_of(chosen: Sequence[str]) -> str:
    """The combination's name, and its variant's; that of the defaults is empty."""
    return "+".join(chosen)


def with_readings(config: Config, chosen: Sequence[str]) -> Config:
    """The configuration with these other readings, and the default elsewhere."""
    read = ReadingsConfig(
        scores_after="processed" if SCORES in chosen else "original",
        local_samples="own_turn" if LOCAL in chosen else "continuation",
        later_sft="phases" if LATER in chosen else "union",
        sft_mean="tokens" if MEAN in chosen else "responses",
    )
    return replace(config, readings=read)


def own_stages(chosen: Sequence[str]) -> tuple[str, ...]:
    """What no combination with fewer of these readings has done in the same way already.

    The Bridge depends on the scores alone, the medium phase on the mean; the phases show from iteration 2 on.
    """
    own = ["3_bridge"] if tuple(chosen) == (SCORES,) else []
    own += ["iter1/1_sft/1_medium"] if tuple(chosen) == (MEAN,) else []
    own += SFT_AND_AFTER if LATER not in chosen else ()
    return (*own, "iter2")


def shares_of(chosen: Sequence[str]) -> tuple[str, ...]:
    """The combinations with fewer of these readings, whose stages this one may take."""
    return tuple(name_of(other) for other in COMBINATIONS if set(other) < set(chosen))
