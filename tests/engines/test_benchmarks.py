"""Each data set's records become problems, whatever format they come in; and what is wrong with one is said."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from reference.config import PRESETS
from reference.connect import benchmarks, training_problems
from reference.engines.benchmarks import (
    DATA_SETS,
    check_no_overlap,
    check_training,
    parse_gsm8k,
    parse_logiqa,
    parse_math500,
    parse_mawps,
    parse_svamp,
    read_problems,
)
from reference.engines.judge import Judge
from reference.records import AnswerKind, Problem

NUMBER, ROUNDED, LATEX, LETTER = AnswerKind.NUMBER, AnswerKind.ROUNDED, AnswerKind.LATEX, AnswerKind.LETTER


@pytest.mark.parametrize(
    ("parse", "record", "question", "gold", "kind"),
    [
        (parse_gsm8k, {"question": "2 + 3?", "answer": "2+3=5\n#### 5"}, "2 + 3?", "5", NUMBER),
        (parse_mawps, {"sQuestion": "q", "lSolutions": [504.0]}, "q", "504", NUMBER),
        (parse_mawps, {"sQuestion": "q", "lSolutions": ["0.8333333333333334"]}, "q", "0.8333333333", ROUNDED),
        (parse_mawps, {"original_text": "q", "ans": "0.125"}, "q", "0.125", NUMBER),
        (parse_mawps, {"original_text": "q", "ans": 1.8333333333333335}, "q", "1.8333333333", ROUNDED),
        (parse_mawps, {"input": "q", "target": 43.0}, "q", "43", NUMBER),
        (parse_mawps, {"question": "q", "answer": "1+1=2\n#### 2"}, "q", "2", NUMBER),
        (parse_mawps, {"question": "q", "answer": 2.5}, "q", "2.5", NUMBER),
        (parse_mawps, {"input": "q", "target": 0.30000000000000004}, "q", "0.3", NUMBER),
        (parse_mawps, {"input": "q", "target": 1e22}, "q", "1" + "0" * 22, NUMBER),
        (parse_mawps, {"input": "q", "target": 1e-05}, "q", "0.00001", ROUNDED),
        (
            parse_svamp,
            {"Body": "Tom has 2. ", "Question": "How many?", "Answer": 145.0},
            "Tom has 2. How many?",
            "145",
            NUMBER,
        ),
        (
            parse_svamp,
            {"Body": "Tom has 2", "Question": "How many?", "Answer": "3.0"},
            "Tom has 2. How many?",
            "3",
            NUMBER,
        ),
        (parse_math500, {"problem": "q", "answer": "\\frac{1}{2}"}, "q", "\\frac{1}{2}", LATEX),
        (
            parse_logiqa,
            {"context": "c", "question": "q", "options": list("wxyz"), "answer": 2, "printed_order": "ACBD"},
            "c\nq\nA. w\nB. x\nC. y\nD. z",
            "C",
            LETTER,
        ),
    ],
)
def test_a_record_becomes_a_problem(parse, record, question, gold, kind):
    parsed = parse(record)
    assert (parsed.question, parsed.gold, parsed.kind) == (question, gold, kind)


def written(tmp_path, *records):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize("answer", [-1, 4, "A", None])
def test_an_option_that_is_not_there_is_no_answer(answer):
    with pytest.raises(ValueError, match="not the number of an option"):
        parse_logiqa({"context": "c", "question": "q", "options": list("wxyz"), "answer": answer})


def test_a_copy_of_logiqa_that_takes_the_place_for_the_letter_is_refused():
    """As the hub has it: 12 of its answers are wrong, and 55 options have lost their first digit."""
    with pytest.raises(ValueError, match="wrong answers .* its own Test.txt"):
        parse_logiqa({"context": "c", "query": "q", "options": list("wxyz"), "correct_option": 1})


def test_problems_are_numbered_in_the_order_of_the_file(tmp_path):
    path = written(tmp_path, *({"question": f"{n}?", "answer": f"#### {n}"} for n in range(3)))
    assert [(p.id, p.gold) for p in read_problems("own", path, "test", limit=2)] == [
        ("own-00000", "0"),
        ("own-00001", "1"),
    ]


@pytest.mark.parametrize(
    ("name", "record", "says"),
    [
        ("own", {"question": "q"}, r"line 1: there is no field 'answer' among \['question'\]"),
        ("own", {"question": "q", "answer": "five"}, "line 1: .*does not end in `#### NUMBER`"),
        ("own", {"question": " ", "answer": "#### 5"}, "line 1: .*are texts"),
        ("own", {"question": 7, "answer": "#### 5"}, "line 1: .*are texts"),
        ("mawps", {"sQuestion": "q", "lSolutions": [1, 2]}, "line 1: no problem of this data set"),
        ("mawps", {"input": "q", "target": "many"}, "line 1: no problem of this data set"),
        ("mawps", {"Question": "q"}, "there is no field 'answer'"),
        ("mawps", {"input": "q", "target": float("nan")}, "line 1: no problem of this data set"),
    ],
)
def test_a_record_that_is_no_problem_is_named_with_its_line(tmp_path, name, record, says):
    with pytest.raises(ValueError, match=says):
        read_problems(name, written(tmp_path, record), "test")


@pytest.mark.parametrize("line", ["[" * 100_000, "{", "7", '"text"'])
def test_a_line_that_is_no_json_object_is_named(tmp_path, line):
    (tmp_path / "data.jsonl").write_text('{"question": "q", "answer": "#### 5"}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2: expected a JSON object"):
        read_problems("own", str(tmp_path / "data.jsonl"), "test")


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(b'\xef\xbb\xbf{"question": "q", "answer": "#### 5"}\n')
    assert read_problems("own", str(tmp_path / "data.jsonl"), "test")[0].gold == "5"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("gsm8k", "7473 or 1319"),
        ("gsm8k_platinum", "1209"),
        ("svamp", "300 or 1000"),
        ("math500", "500"),
        ("logiqa", "651"),
    ],
)
def test_a_data_set_with_records_missing_is_refused(tmp_path, name, sizes):
    with pytest.raises(ValueError, match=f"has 1 problems, {name} has {sizes}; .*a name of your own"):
        read_problems(name, written(tmp_path, {"question": "q", "answer": "#### 5"}), "test")


@pytest.mark.parametrize("source", ["data/nowhere.jsonl", "data/nowhere.txt"])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(source, monkeypatch):
    monkeypatch.setattr("reference.engines.benchmarks.load_hub_records", lambda *call: pytest.fail(f"asked for {call}"))
    with pytest.raises(ValueError, match=f"cannot read the problems in {source}"):
        read_problems("own", source, "test")


def test_a_benchmark_that_nobody_knows_needs_a_file():
    with pytest.raises(
        ValueError, match="no benchmark 'gsm9k'; give NAME=PATH, or one of gsm8k, gsm8k_platinum, mawps"
    ):
        read_problems("gsm9k", "", "test")


SIZES = {
    "gsm8k/train": (7473, {NUMBER: 7473}),
    "gsm8k/test": (1319, {NUMBER: 1319}),
    "gsm8k_platinum/test": (1209, {NUMBER: 1209}),
    "mawps/test": (238, {NUMBER: 232, ROUNDED: 6}),
    "mawps/all": (2373, {NUMBER: 2309, ROUNDED: 64}),
    "mawps/qwen_eval_2065": (2065, {NUMBER: 2006, ROUNDED: 59}),
    "svamp/test": (300, {NUMBER: 300}),
    "svamp/all": (1000, {NUMBER: 1000}),
    "math500/test": (500, {LATEX: 500}),
    "logiqa/test": (651, {LETTER: 651}),
}
WRONG = {NUMBER: "987654.321", ROUNDED: "987654.321", LATEX: "987654.321", LETTER: "E"}


@pytest.mark.parametrize("file", SIZES)
def test_each_gold_answer_of_the_real_data_is_right_and_another_is_wrong(data_dir, file):
    name = file.split("/")[0]
    if name == "math500":
        pytest.importorskip("math_verify", reason="LaTeX answers need math-verify: pip install '.[math]'")
    problems = read_problems(name, str(data_dir / f"{file}.jsonl"), "test")
    size, kinds = SIZES[file]
    assert len(problems) == size and Counter(problem.kind for problem in problems) == kinds
    judge = Judge(problems)
    for problem in problems:
        right = judge.judge(problem, f"Because.\n#### {problem.gold}")
        assert right.correct and right.has_answer, problem
        assert not judge.judge(problem, f"Because.\n#### {WRONG[problem.kind]}").correct, problem
        assert not judge.judge(problem, problem.gold).has_answer, problem  # without the mark


def test_options_stand_under_their_own_letters_where_the_source_prints_them_in_another_order(data_dir):
    records = [json.loads(line) for line in (data_dir / "logiqa/test.jsonl").read_text().splitlines()]
    odd = [record for record in records if record["printed_order"] != "ABCD"]
    assert len(odd) == 19
    for record in odd:
        parsed = parse_logiqa(record)
        assert parsed.gold == record["answer_letter"]
        assert f"\n{parsed.gold}. {record['options'][record['answer']]}" in parsed.question


@pytest.mark.parametrize("file", [file for file in SIZES if file != "gsm8k/train"])
def test_no_real_benchmark_is_in_gsm8ks_training_data(data_dir, file):
    training = read_problems("gsm8k", str(data_dir / "gsm8k/train.jsonl"), "train")
    check_no_overlap(training, {file: read_problems(file.split("/")[0], str(data_dir / f"{file}.jsonl"), "test")})


def test_a_test_question_in_the_training_data_is_refused_however_it_is_written():
    training = [Problem("t-1", "Tom has 3 apples. How many?", "3"), Problem("t-2", "Two plus two?", "4")]
    check_no_overlap(training, {"exam": [Problem("e-1", "Tom has 4 apples. How many?", "4")]})
    with pytest.raises(ValueError, match="1 questions of the benchmark exam .* the first is e-2 = t-1"):
        check_no_overlap(training, {"exam": [Problem("e-2", "tom  has 3 apples - HOW many", "3")]})


def test_the_offline_world_keeps_its_tests_out_of_its_training_data():
    config = PRESETS["tiny"]
    tests = benchmarks(config)
    assert len(tests) == 5
    check_no_overlap(training_problems(config), tests)


@pytest.mark.parametrize("kind", [ROUNDED, LATEX, LETTER])
def test_training_needs_exact_decimals(kind):
    check_training([Problem("t-1", "q", "3")])
    with pytest.raises(ValueError, match="1 training problems .* the first is t-2"):
        check_training([Problem("t-1", "q", "3"), Problem("t-2", "q", "A", kind=kind)])


def test_every_known_benchmark_has_a_source_of_its_own():
    for name, data_set in DATA_SETS.items():
        assert data_set.address.endswith("/Test.txt") if name == "logiqa" else data_set.hub_id.count("/") == 1
        assert not data_set.sizes or data_set.hub_size in data_set.sizes
        assert data_set.hub_size > 0  # what read_problems holds the hub to


def test_without_datasets_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("reference.engines.hub_datasets.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"openai/gsm8k is a data set of the hub: pip install '.\[hub\]'"):
        read_problems("gsm8k", "", "train")


def test_hub_records_are_loaded_by_datasets(tmp_path, monkeypatch):
    """The real loader, on a local folder in place of the hub."""
    pytest.importorskip("datasets", reason="hub data sets need datasets: pip install '.[hub]'")
    folder = tmp_path / "owner" / "sums"
    folder.mkdir(parents=True)
    lines = [{"question": f"{n}?", "answer": f"so\n#### {n}"} for n in range(4)]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    from reference.engines.hub_datasets import load_hub_records

    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    assert load_hub_records(str(folder), None, "test") == lines
    with pytest.raises(ValueError, match="cannot load the data set .*give NAME=PATH"):
        load_hub_records(str(folder), None, "validation")


@pytest.fixture
def served(tmp_path):
    """The address of a folder on this machine, over HTTP."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("name", "split", "size"), [("mawps", "test", "355"), ("svamp", "test", "300")])
def test_the_hub_is_held_to_the_size_that_it_is_known_to_have(monkeypatch, name, split, size):
    """A file may also hold all of SVAMP, and MAWPS has no agreed size."""
    monkeypatch.setattr("reference.engines.benchmarks.load_hub_records", lambda *call: [{}] * 1000)
    with pytest.raises(ValueError, match=f"has 1000 problems, {name} has {size}"):
        read_problems(name, "", split)


def test_logiqas_own_file_is_downloaded_and_read(served, monkeypatch):
    folder, address = served
    item = "\nb\nA context.\nA question?\nA.one\nC.three\nB.two\nD.four\n"
    (folder / "Test.txt").write_text(item * 651)
    monkeypatch.setitem(DATA_SETS, "logiqa", replace(DATA_SETS["logiqa"], address=f"{address}/Test.txt"))
    problems = read_problems("logiqa", "", "test", limit=2)
    assert [problem.id for problem in problems] == ["logiqa-00000", "logiqa-00001"]
    assert problems[0].question == "A context.\nA question?\nA. one\nB. two\nC. three\nD. four"
    assert (problems[0].gold, problems[0].kind) == ("B", LETTER)
    (folder / "Test.txt").unlink()
    with pytest.raises(ValueError, match="cannot download .*404.*give NAME=PATH"):
        read_problems("logiqa", "", "test")


def test_logiqas_own_file_may_lie_on_the_disk(tmp_path):
    (tmp_path / "Test.txt").write_text("\na\nc\nq\nA.w\nB.x\nC.y\nD.z\n")
    with pytest.raises(ValueError, match="Test.txt has 1 problems, logiqa has 651"):
        read_problems("logiqa", str(tmp_path / "Test.txt"), "test")
