"""A bar on a terminal for whatever takes longer than a few seconds."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """The items themselves, with a bar on stderr after two seconds; none where stderr is no terminal.

    Of several processes only the first shows its own: their parts take about the same time.
    """
    silent = True if os.environ.get("RANK", "0") != "0" else None
    return tqdm(items, total=total, desc=label, delay=2, leave=False, disable=silent, dynamic_ncols=True)
