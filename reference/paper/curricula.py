"""Appendix A.1: five curricula with the same budget of supervised tokens (Figures 1, 6 and 7)."""

from collections.abc import Mapping, Sequence
from random import Random

from reference.records import DifficultyGroup, Trace

SIMPLE, MEDIUM, HARD = DifficultyGroup.SIMPLE, DifficultyGroup.MEDIUM, DifficultyGroup.HARD
CURRICULA = ("simple", "medium", "hard", "mixed", "medium_hard")


def supervised_tokens(trace: Trace) -> int:
    """What Eq. 21 has a loss on: the trace's tokens and the one that ends the turn."""
    return trace.num_tokens + 1


def within_budget(traces: Sequence[Trace], budget: float) -> list[Trace]:
    """The longest beginning of the list whose supervised tokens are at most `budget`.

    Raises:
        ValueError: the whole list has fewer tokens and could not be cut: nobody knows whether it would have sufficed.
    """
    taken: list[Trace] = []
    tokens = 0
    for trace in traces:
        tokens += supervised_tokens(trace)
        if tokens > budget:
            return taken
        taken.append(trace)
    raise ValueError(f"{len(traces)} traces with {tokens} tokens do not fill a budget of {budget:g}; distil more")


def phases_of(
    name: str,
    pools: Mapping[DifficultyGroup, Sequence[Trace]],
    sizes: Mapping[DifficultyGroup, int],
    budget: int,
    rng: Random,
) -> list[tuple[str, list[Trace]]]:
    """What a curriculum learns, as named phases in order, with `budget` supervised tokens in all.

    `pools`: each group's traces in the order in which they are drawn, with more tokens than the budget, so that a
    smaller budget's traces are among a larger one's. `sizes`: a group's tokens with one trace for each problem, for
    Mixed's "original token proportions". Medium -> Hard halves the budget (ambiguity A56).

    Raises:
        ValueError: there is no such curriculum; a pool is too small.
    """
    if name in ("simple", "medium", "hard"):
        return [(name, within_budget(pools[DifficultyGroup(name)], budget))]
    if name == "medium_hard":
        return [(str(group), within_budget(pools[group], budget / 2)) for group in (MEDIUM, HARD)]
    if name == "mixed":
        total = sum(sizes.values())
        drawn = [
            t for group in sizes if sizes[group] for t in within_budget(pools[group], budget * sizes[group] / total)
        ]
        return [(name, shuffled(drawn, rng))]
    raise ValueError(f"there is no curriculum {name!r}; there are {', '.join(CURRICULA)}")


def shuffled(traces: Sequence[Trace], rng: Random) -> list[Trace]:
    """The same traces in random order."""
    order = list(traces)
    rng.shuffle(order)
    return order
