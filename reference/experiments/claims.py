"""What the paper claims of its experiments: each a comparison of rows, written down before any result was seen."""

from itertools import pairwise

from reference.config import Config
from reference.experiments.results import Claim
from reference.experiments.variants import (
    AFTER_INITIAL_SFT,
    AFTER_TWO_ITERATIONS,
    ALL_ZERO,
    ALONE_ROW,
    AVERAGE,
    BRIDGE_VARIANTS,
    PASS,
    PLAIN_ROW,
    component_rows,
    of_curriculum,
)

LOCAL = "SFT-Medium -> local samples alone"
CONTROL = "a control, not the paper's"
TEN, TWO, THREE, ELEVEN = "Table 10", "Table 2", "Table 3", "Table 11"


def claims(config: Config) -> list[Claim]:
    """Every claim that an experiment bears on; of a curriculum, the mean over its budgets."""
    return [*_motivation(config), *_components(config), *_bridge_operations(), *_the_rest()]


def _motivation(config: Config) -> list[Claim]:
    pairs = [("medium_hard", other) for other in ("simple", "medium", "hard", "mixed")]
    later = [("simple", "hard"), ("medium", "hard"), ("mixed", "hard")]  # Appendix A.2; written down after a first look
    names = {"medium_hard": "Medium -> Hard"}
    compared = [
        Claim(
            "motivation",
            "Figures 6, 7",
            f"{names.get(above, above.capitalize())} is above {below.capitalize()} at the same budget",
            PASS,
            of_curriculum(config, above),
            of_curriculum(config, below),
        )
        for above, below in (*pairs, *later)
    ]
    mixed = Claim(
        "motivation", "Figures 6, 7", "Mixed is above the base", PASS, of_curriculum(config, "mixed"), ("base",)
    )
    return [*compared, mixed]


def _components(config: Config) -> list[Claim]:
    labels = [row.label for row in component_rows(config)]
    steps = [
        Claim("components", TEN, f"{above} is above {below}", AVERAGE, (above,), (below,))
        for below, above in pairwise(labels)
    ]
    return [*steps, Claim("components", TEN, "Full Model is above Base", AVERAGE, (labels[-1],), (labels[0],))]


def _bridge_operations() -> list[Claim]:
    return [
        Claim(
            "bridge-operations",
            TWO,
            f"Full Bridge is above {other}{when}",
            metric,
            (f"Full Bridge{when}",),
            (other + when,),
        )
        for when, metric in ((AFTER_INITIAL_SFT, PASS), (AFTER_TWO_ITERATIONS, AVERAGE))
        for other in BRIDGE_VARIANTS
        if other != "Full Bridge"
    ]


def _the_rest() -> list[Claim]:
    grpo, exclusion, recycling = "Initial SFT + GRPO", "w/ all-zero exclusion", "w/ all-zero exclusion + Recycling"
    one, two, three, four = (f"Iteration {t}" for t in range(1, 5))
    full, sft = "Full Model", "SFT-Medium -> Bridged-Hard"
    alone, repeated = ALONE_ROW.label, "Second iteration without recycling, equal steps"
    return [
        Claim(
            "all-zero", THREE, "Excluding all-zero problems is above GRPO on everything", AVERAGE, (exclusion,), (grpo,)
        ),
        Claim("all-zero", THREE, "Recycling them is above excluding them", AVERAGE, (recycling,), (exclusion,)),
        Claim("iterations", ELEVEN, "Iteration 2 is above iteration 1", AVERAGE, (two,), (one,)),
        Claim("iterations", ELEVEN, "Iteration 2 is above iteration 3", AVERAGE, (two,), (three,)),
        Claim("iterations", ELEVEN, "Iteration 3 is above iteration 4", AVERAGE, (three,), (four,)),
        Claim(
            "iterations",
            "Figure 4",
            "Iteration 1 has more all-zero problems than iteration 2",
            ALL_ZERO,
            (one,),
            (two,),
        ),
        Claim("controls", CONTROL, "Recycling is above as many steps without it", AVERAGE, (full,), (repeated,)),
        Claim(
            "controls",
            CONTROL,
            "The method is above GRPO on what the base solves, for as many steps",
            AVERAGE,
            (full,),
            (alone,),
        ),
        Claim("controls", "Table 1", "The method is above ordinary GRPO", AVERAGE, (full,), (PLAIN_ROW.label,)),
        Claim(
            "controls",
            CONTROL,
            "Bridged traces with their local samples are above the local samples alone",
            PASS,
            (sft,),
            (LOCAL,),
        ),
    ]
