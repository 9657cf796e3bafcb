"""Where every random number of a run comes from."""

import hashlib


def seed_of(*parts: str | int) -> int:
    """A 64-bit seed from names and numbers such as (run seed, stage, problem id, sample).

    It knows no rank, batch or order, so that a run gives the same numbers however its work is shared or interrupted.
    All of a run's seeds follow from Table 5's (ambiguity A39).
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
