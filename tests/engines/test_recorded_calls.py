"""Recorded calls: what is on disk is found again, and the budget is never exceeded."""

import threading

import pytest

from reference.engines.recorded_calls import BudgetSpent, Call, RecordedCalls, Usage


def call(key, tokens=10, content="0.5"):
    return Call(key, "importance", "p", 0, content, "stop", tokens - 2, 2)


def recorded(folder, keys, **settings):
    calls = RecordedCalls(folder, **settings)
    for key in keys:
        calls.add(call(key))
    calls.close()


def test_what_one_process_has_recorded_every_process_finds(tmp_path):
    odd = "a \u2028 line,\r\nanother \u00e9"
    calls = RecordedCalls(tmp_path)
    calls.add(call("a", content=odd))
    assert calls.find("a").content == odd and calls.find("b") is None
    assert calls.usage() == Usage(calls=1, replayed=1, tokens_read=8, tokens_written=2)
    other = RecordedCalls(tmp_path, writer=1)
    assert other.find("a") == call("a", content=odd)
    assert other.usage() == Usage(replayed=1)
    other.add(call("b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calls-0.jsonl", "calls-1.jsonl"]
    assert len((tmp_path / "calls-0.jsonl").read_text().split("\n")) == 2


def test_each_process_goes_on_with_its_own_answer_where_two_have_asked_the_same(tmp_path):
    for writer in (0, 1, 2):
        calls = RecordedCalls(tmp_path, writer)
        calls.add(call("a", content=f"of {writer}"))
        calls.close()
    assert [RecordedCalls(tmp_path, writer).find("a").content for writer in (0, 1, 2)] == ["of 0", "of 1", "of 2"]


@pytest.mark.parametrize("rest", ['{"key": "b", "ver', "x" * 5, '{"key": "b"}'])
def test_what_a_kill_cut_off_is_dropped_and_a_new_line_begun(tmp_path, rest):
    recorded(tmp_path, ["a"])
    with open(tmp_path / "calls-0.jsonl", "a") as file:
        file.write(rest)
    RecordedCalls(tmp_path, writer=1).close()
    assert (tmp_path / "calls-0.jsonl").read_text().endswith(rest)  # another process may be writing it just now
    recorded(tmp_path, ["b"])
    calls = RecordedCalls(tmp_path)
    assert calls.find("a") == call("a") and calls.find("b") == call("b")


def test_a_damaged_line_is_named(tmp_path):
    recorded(tmp_path, ["a"])
    (tmp_path / "calls-3.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"calls-3.jsonl is damaged .* delete that line"):
        RecordedCalls(tmp_path)


def test_calls_of_all_files_and_calls_in_flight_count(tmp_path):
    recorded(tmp_path, ["a", "b"])
    recorded(tmp_path, ["c"], writer=1)
    calls = RecordedCalls(tmp_path, max_calls=5)
    assert calls.reserve(9) and calls.reserve(9)
    assert not calls.reserve(9)  # 3 are made and 2 may be
    calls.release(9)  # one has failed
    assert calls.reserve(9)
    for key in "de":
        calls.add(call(key))
        calls.release(9)
    sentence = (
        "the teacher has answered 5 calls, and --teacher.max-calls is 5; all answers are kept, and the run goes on "
        "with the same command and a larger --teacher.max-calls"
    )
    with pytest.raises(BudgetSpent) as caught:
        calls.reserve(9)
    assert str(caught.value) == sentence
    assert calls.find("e")  # what is there can still be read
    assert RecordedCalls(tmp_path, max_calls=6).reserve(9)


def test_tokens_that_a_call_may_take_count_until_it_is_known_what_it_took(tmp_path):
    recorded(tmp_path, ["a"])  # 10 tokens
    calls = RecordedCalls(tmp_path, max_tokens=100)
    assert calls.reserve(50)
    assert not calls.reserve(50)
    calls.add(call("b", tokens=20))
    calls.release(50)
    assert calls.reserve(70)
    calls.release(70)
    with pytest.raises(BudgetSpent, match="has taken 30 tokens and the next call may take 71, and .*max-tokens is 100"):
        calls.reserve(71)


def test_processes_share_what_is_left(tmp_path):
    recorded(tmp_path, ["a", "b", "c"])
    shares = [RecordedCalls(tmp_path, writer, writers=2, max_calls=8) for writer in (0, 1)]
    for share in shares:
        assert share.reserve(9) and share.reserve(9) and not share.reserve(9)  # (8 - 3) // 2
        for key in "de":
            share.add(call(key))
            share.release(9)
        with pytest.raises(BudgetSpent, match="max-calls is 8, shared by 2 processes;"):
            share.reserve(9)
    with pytest.raises(BudgetSpent):
        RecordedCalls(tmp_path, max_calls=2).reserve(9)  # less than there is already


def test_threads_lose_no_line_and_no_count(tmp_path):
    calls = RecordedCalls(tmp_path, max_calls=800)

    def work(number):
        for step in range(100):
            assert calls.reserve(9)
            calls.add(call(f"{number}-{step}"))
            calls.release(9)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.usage() == Usage(800, 0, 6400, 1600)
    with pytest.raises(BudgetSpent):
        calls.reserve(9)
    again = RecordedCalls(tmp_path)
    assert all(again.find(f"{number}-{step}") for number in range(8) for step in range(100))
