"""Where each sampled token stands in its response, and how likely it was."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from reference.records import Completion

UNDECODED = "\ufffd"  # what a byte-level tokenizer gives for a part of a character


class Shading(NamedTuple):
    """A response cut into its tokens: their lengths in UTF-16 units, as the page counts, and -100 log p of each.

    Tokens that are a character only together are one piece. The end of turn has length 0.
    """

    lengths: tuple[int, ...]
    centinats: tuple[int, ...]


class TokenTexts:
    """The texts of a checkpoint's tokens."""

    def __init__(self, tokenizer_file: Path):
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._known: dict[int, str] = {}

    def shading(self, response: Completion) -> Shading | None:
        """None where the tokens' texts, one after the other, are not the response: nothing is guessed then."""
        pieces: list[tuple[str, float]] = []
        waiting: list[int] = []
        logprob = 0.0
        last = len(response.token_ids) - 1
        for at, (token, value) in enumerate(zip(response.token_ids, response.known_logprobs(), strict=True)):
            if at == last and response.finished:  # the end of turn, whatever the tokenizer writes for it
                pieces += [(self._text(waiting), logprob)] if waiting else []
                pieces.append(("", value))
                waiting = []
                break
            waiting.append(token)
            logprob += value
            text = self._text(waiting)
            if not text.endswith(UNDECODED):
                pieces.append((text, logprob))
                waiting, logprob = [], 0.0
        if waiting:
            pieces.append((self._text(waiting), logprob))
        if "".join(text for text, _ in pieces) != response.text:
            return None
        lengths = tuple(len(text.encode("utf-16-le")) // 2 for text, _ in pieces)
        return Shading(lengths, tuple(round(-100 * value) for _, value in pieces))

    def _text(self, ids: Sequence[int]) -> str:
        if len(ids) > 1:
            return self._tokenizer.decode(ids, skip_special_tokens=True)
        if ids[0] not in self._known:
            self._known[ids[0]] = self._tokenizer.decode(ids, skip_special_tokens=True)
        return self._known[ids[0]]
