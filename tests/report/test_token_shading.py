"""A response cut into its tokens."""

import pytest

from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.records import Completion
from reference.report.token_shading import Shading, TokenTexts


@pytest.fixture(scope="module")
def texts():
    return TokenTexts(BASE_CHECKPOINT / "tokenizer.json")


def completion(chat, text, finished=True):
    """What the sampler would give for this text, each token less likely than the one before."""
    ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = (*ids, chat.end_ids[0]) if finished else tuple(ids)
    return Completion(ids, text, finished, tuple(-0.5 * at for at in range(len(ids))))


def cut(text, lengths):
    """The parts of a text, as the page cuts it: by UTF-16 units."""
    units, at, parts = text.encode("utf-16-le"), 0, []
    for length in lengths:
        parts.append(units[2 * at : 2 * (at + length)].decode("utf-16-le"))
        at += length
    return parts


@pytest.mark.parametrize("finished", [True, False])
def test_a_token_is_a_piece_and_the_end_of_turn_an_empty_one(texts, chat, finished):
    response = completion(chat, "There are 3 + 4 = 7 cups.\n#### 7", finished)
    shading = texts.shading(response)
    assert shading.centinats == tuple(50 * at for at in range(len(response.token_ids)))
    words = [chat.tokenizer.decode([token]) for token in response.token_ids[: -1 if finished else None]]
    assert cut(response.text, shading.lengths) == words + [""] * finished


def test_a_character_of_several_tokens_is_one_piece_with_their_log_probabilities_summed(texts, chat):
    response = completion(chat, "7 €, 8 \U0001f600.")
    shading = texts.shading(response)
    pieces = cut(response.text, shading.lengths)
    assert "".join(pieces) == response.text and any("\U0001f600" in piece for piece in pieces)
    assert len(pieces) < len(response.token_ids)
    assert sum(shading.centinats) == -100 * sum(response.logprobs)


def test_half_a_character_at_the_limit_is_a_piece_too(texts, chat):
    ids = chat.tokenizer("7 \U0001f600", add_special_tokens=False)["input_ids"][:-1]
    text = chat.tokenizer.decode(ids)
    shading = texts.shading(Completion(tuple(ids), text, False, (-1.0,) * len(ids)))
    assert sum(shading.lengths) == len(text) and sum(shading.centinats) == 100 * len(ids)


def test_a_text_that_is_not_its_tokens_is_not_shaded(texts, chat):
    response = completion(chat, "There are 7.")
    other = Completion(response.token_ids, "There are 8.", True, response.logprobs)
    assert texts.shading(other) is None and isinstance(texts.shading(response), Shading)


def test_an_empty_response(texts, chat):
    assert texts.shading(Completion((chat.end_ids[0],), "", True, (-0.25,))) == Shading((0,), (25,))
    assert texts.shading(Completion((), "", False, ())) == Shading((), ())
