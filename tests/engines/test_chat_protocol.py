"""What an endpoint's replies mean, and how long to wait after them."""

import json
from datetime import UTC, datetime

import pytest

from reference.engines import chat_protocol
from reference.engines.chat_protocol import (
    Answer,
    FailedCall,
    error_code,
    error_text,
    read_answer,
    seconds_to_wait,
    without_key,
)

TOO_LONG = "context_length_exceeded"
NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


def reply(content="0.5", **message):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}


def test_the_first_choice_is_the_answer():
    assert read_answer(json.dumps(reply())) == Answer("0.5", "stop", 7, 2)
    assert read_answer(json.dumps({**reply(), "usage": None})) == Answer("0.5", "stop", None, None)
    assert read_answer(json.dumps(reply(None))) == Answer("", "stop", 7, 2)
    assert read_answer(json.dumps(reply(None, refusal="I will not."))) == Answer("", "content_filter", 7, 2)
    cut = reply("So")
    cut["choices"][0]["finish_reason"] = "length"
    assert read_answer(json.dumps(cut)).finish_reason == "length"


def test_half_a_surrogate_pair_can_be_written_to_a_file():
    assert read_answer(json.dumps(reply("a\ud83d"))).content == "a?"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>Welcome</html>",
        json.dumps(reply())[:-5],
        "null",
        "[]",
        '"text"',
        "{}",
        '{"error": {"message": "busy"}}',
        '{"choices": []}',
        '{"choices": [{}]}',
        '{"choices": [{"message": null}]}',
        '{"choices": {"0": 1}}',
        json.dumps(reply(["a"])),
        json.dumps({**reply(), "usage": {"prompt_tokens": "7"}}),
        "[" * 100_000,
    ],
)
def test_what_is_no_chat_completion_is_a_failed_call(body):
    with pytest.raises(FailedCall, match="no chat completion"):
        read_answer(body)


@pytest.mark.parametrize(
    "header, seconds",
    [
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("0", 0.0),
        ("Wed, 04 Mar 2026 12:00:09 GMT", 9.0),
        ("Wed, 04 Mar 2026 11:00:00 GMT", 0.0),  # over
        ("Wed, 04 Mar 2026 13:00:03 +0100", 3.0),
    ],
)
def test_the_endpoint_says_how_long_to_wait(header, seconds):
    for chance in (0.0, 0.5, 1.0):
        waits = {seconds_to_wait(header, resends, chance, NOW) for resends in range(6)}
        assert waits == {seconds + chance}


@pytest.mark.parametrize("header", [None, "", "soon", "-3", "Wed, 99 Mar 2026 12:00:09 GMT"])
def test_without_a_word_each_wait_is_twice_the_one_before_up_to_a_minute(header):
    assert [seconds_to_wait(header, resends, 0.0, NOW) for resends in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [seconds_to_wait(header, resends, 1.0, NOW) for resends in range(3)] == [0.5, 1, 2]


def test_a_key_is_taken_out_unless_it_is_a_word_that_stands_for_none():
    assert without_key("Bearer sk-1234567 and sk-1234567", "sk-1234567") == "Bearer [key] and [key]"
    assert without_key("the set is EMPTY", "EMPTY") == "the set is EMPTY"
    assert chat_protocol.SECRET_LENGTH <= len("sk-1234567")


@pytest.mark.parametrize(
    "body, text, code",
    [
        ({"error": {"message": "slow\n down", "code": "rate"}}, "slow down", "rate"),
        ({"message": "no model", "code": 404}, "no model", "404"),  # the inner object alone, as openai gives it
        ({"error": "busy"}, "busy", ""),
        ({"detail": "x"}, "{'detail': 'x'}", ""),
        ("<h1>Bad gateway</h1>", "<h1>Bad gateway</h1>", ""),
        (None, "no message", ""),
        ("", "no message", ""),
        ({"message": "Its maximum context length is 9.", "code": 400}, "Its maximum context length is 9.", TOO_LONG),
        ({"message": "max_tokens is past the context length"}, "max_tokens is past the context length", ""),
    ],
)
def test_what_an_error_says(body, text, code):
    assert (error_text(body), error_code(body)) == (text, code)
