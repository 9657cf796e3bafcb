"""The word problems are arithmetically true, solvable from their text, graded, reproducible and kept apart."""

import hashlib
import json
import re
import sys

import pytest

from reference.offline import story_templates
from reference.offline.word_problems import OUT_OF_DISTRIBUTION, SPLITS, generate, main

ARITHMETIC_SPLITS = tuple(split for split in SPLITS if split != "ood_logic")
COUNT = 1500

FIRST_QUESTION = (
    "Amy has 37 toys. Una has 11 fewer toys than Amy. Pam has 25 fewer toys than Una. Lee has 34 more "
    "toys than Pam. Hal has 5 fewer toys than Lee. Dan has 9 fewer toys than Hal. How many toys do Hal "
    "and Dan have together?"
)
FIRST_GOLD = "51"

WORDS = {"dozen": 12, "half": 2, "twice": 2, "three": 3, "third": 3, "quarter": 4, "fifth": 5, "sixth": 6}
WORDS |= {"seventh": 7, "eighth": 8, "ninth": 9}

# What a reader goes by, in the order in which to try.
SIGNS = (
    ("*", r"twice|times"),
    ("/", r"keeps|piles|share|stays|cuts|half|third|quarter|fifth|sixth|seventh|eighth|ninth"),
    ("-", r"loses|gives (\d+|a dozen) \w+ to|sells|takes|thrown|leak|pumps|of it|fewer|less|younger"),
    ("+", r"finds|more|gives [A-Z]\w+ |wins|adds|gets|brings|pours|also pays|farther|older"),
)
DISTRACTOR = re.compile(rf"\d+ ({'|'.join(story_templates.ANIMALS)})|waited \d+ minutes")


@pytest.fixture(scope="module")
def problems():
    return {split: generate(split, COUNT, seed=0) for split in SPLITS}


def annotations(problem):
    """The (numbers, operators, result) of each line that calculates."""
    found = []
    for line in problem.solution.splitlines()[:-1]:
        text, inside, after = re.fullmatch(r"[A-Za-z ,]+ ([0-9 +*/-]+) = <<([^>]*)>>([0-9]+) [a-z]+\.", line).groups()
        expression, result = inside.split("=")
        assert text.replace(" ", "") == expression
        assert after == result
        found.append((re.findall(r"\d+", expression), re.findall(r"[+*/-]", expression), int(result)))
    return [([int(number) for number in numbers], operators, result) for numbers, operators, result in found]


def value_of(numbers, operators):
    """An expression by plain loops: products and quotients first, then a running sum; every value is checked."""
    terms = [numbers[0]]
    signs = ["+"]
    for operator, number in zip(operators, numbers[1:], strict=True):
        if operator == "*":
            terms[-1] *= number
        elif operator == "/":
            assert terms[-1] % number == 0
            terms[-1] //= number
        else:
            terms.append(number)
            signs.append(operator)
        assert 0 <= terms[-1] <= 99
    total = 0
    for sign, term in zip(signs, terms, strict=True):
        total = total + term if sign == "+" else total - term
        assert 0 <= total <= 99
    return total


def num_operations(problem):
    return sum(len(operators) for _, operators, _ in annotations(problem))


def words_and_numbers(question):
    """The numbers that a question states, in digits or in words."""
    return {int(digits) for digits in re.findall(r"\d+", question)} | {
        WORDS[word] for word in re.findall(r"[a-z]+", question) if word in WORDS
    }


def number_in(sentence):
    digits = re.search(r"\d+", sentence)
    return int(digits.group()) if digits else next(WORDS[word] for word in sentence.split() if word in WORDS)


def after(value, sentence):
    """What a sentence makes of a value, by its key words."""
    operator = next(operator for operator, sign in SIGNS if re.search(sign, sentence))
    return value_of([value, number_in(sentence)], [operator])


def product_in(sentence):
    """12 for "3 pens for 4 dollars each" and "3 bags with 4 pens each"; None in any other sentence."""
    found = re.search(r"(\d+|a dozen) \w+ (?:for|with) (\d+|a dozen) \w+ each", sentence)
    return number_in(found.group(1)) * number_in(found.group(2)) if found else None


def answer_of_comparisons(sentences, question):
    """Everyone's number, as soon as the one compared with is known; then the sum over those asked for."""
    values = {}
    while len(values) < len(sentences):
        for sentence in sentences:
            words = sentence.removeprefix("The ").split()
            if not re.search(r" (than|as) (the )?\w+$", sentence):
                values[words[0]] = number_in(sentence)
            elif words[-1] in values:
                values[words[0]] = after(values[words[-1]], sentence)
    return sum(value for name, value in values.items() if re.search(rf"\b{name}\b", question))


def answer_of_changes(sentences):
    """One quantity, followed from sentence to sentence."""
    value = product_in(sentences[0]) or number_in(sentences[0])
    for sentence in sentences[1:]:
        if "pays with" in sentence:
            value = number_in(sentence) - value
        elif product_in(sentence):
            value += product_in(sentence)
        else:
            value = after(value, sentence)
    return value


@pytest.mark.parametrize("split", [split for split in ARITHMETIC_SPLITS if split != "ood_style"])
def test_a_reader_who_sees_the_question_alone_finds_the_gold(split, problems):
    for problem in problems[split]:
        *sentences, question = problem.question.split(". ")
        sentences = [sentence for sentence in sentences if not DISTRACTOR.search(sentence)]
        compares = any(re.search(r" than | as (many \w+|old|far) as ", sentence) for sentence in sentences)
        if compares or question.endswith("together?"):
            answer = answer_of_comparisons(sentences, question)
        else:
            answer = answer_of_changes(sentences)
        assert str(answer) == problem.gold, problem


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_problems_and_another_seed_others(split):
    assert generate(split, 50, seed=3) == generate(split, 50, seed=3)
    assert generate(split, 50, seed=3) != generate(split, 50, seed=4)


def test_the_first_problem_never_changes():
    """Written down once: a difference from process to process, as `hash` would make, shows here."""
    (problem,) = generate("train", 1, seed=0)
    assert problem.question == FIRST_QUESTION
    assert problem.gold == FIRST_GOLD


@pytest.mark.parametrize("split", SPLITS)
def test_a_longer_list_begins_with_the_shorter(split):
    assert generate(split, 60, seed=0)[:25] == generate(split, 25, seed=0)


@pytest.mark.parametrize("split", SPLITS)
def test_ids_name_the_split_and_sort_in_order(split, problems):
    ids = [problem.id for problem in problems[split]]
    assert ids[0] == f"{split}-000000"
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("split", ARITHMETIC_SPLITS)
def test_every_annotation_is_true_and_the_last_one_is_the_gold(split, problems):
    for problem in problems[split]:
        lines = annotations(problem)
        for numbers, operators, result in lines:
            assert value_of(numbers, operators) == result, problem
        assert problem.gold == str(lines[-1][2])


@pytest.mark.parametrize("split", SPLITS)
def test_the_last_line_is_the_gold_after_four_hashes(split, problems):
    for problem in problems[split]:
        assert problem.solution.splitlines()[-1] == f"#### {problem.gold}"


@pytest.mark.parametrize("split", ARITHMETIC_SPLITS)
def test_every_operand_is_stated_in_the_question_or_is_an_earlier_result(split, problems):
    for problem in problems[split]:
        known = words_and_numbers(problem.question)
        for numbers, _, result in annotations(problem):
            assert set(numbers) <= known, problem
            known.add(result)


@pytest.mark.parametrize("split", SPLITS)
def test_numbers_are_0_to_99_and_text_is_plain_ascii(split, problems):
    for problem in problems[split]:
        text = problem.question + problem.solution
        assert all(0 <= int(digits) <= 99 for digits in re.findall(r"\d+", text))
        assert text.isascii()
        assert problem.question.endswith("?")
        assert "{" not in text and "  " not in text


@pytest.mark.parametrize("split", ["pretrain", "train", "test", "ood_templates"])
def test_one_to_six_operations_are_equally_frequent(split, problems):
    counts = [num_operations(problem) for problem in problems[split]]
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    for operations in range(1, 7):
        assert counts.count(operations) / COUNT == pytest.approx(1 / 6, abs=0.04)


def test_other_splits_have_the_numbers_of_operations_that_they_promise(problems):
    assert {num_operations(problem) for problem in problems["ood_operations"]} == {4, 5, 6, 7, 8}
    assert {num_operations(problem) for problem in problems["ood_style"]} == {1, 2}


@pytest.mark.parametrize("split", ["pretrain", "train", "test"])
def test_lines_hold_as_many_operations_as_gsm8k_lines_do(split, problems):
    sizes = [len(operators) for problem in problems[split] for _, operators, _ in annotations(problem)]
    assert sizes.count(1) / len(sizes) == pytest.approx(0.86, abs=0.02)
    assert sizes.count(2) / len(sizes) == pytest.approx(0.12, abs=0.02)
    assert sizes.count(3) / len(sizes) == pytest.approx(0.02, abs=0.01)


def test_the_other_operation_mix_multiplies_divides_and_compounds_more(problems):
    def shares(split):
        lines = [operators for problem in problems[split] for _, operators, _ in annotations(problem)]
        flat = "".join("".join(operators) for operators in lines)
        return (flat.count("*") + flat.count("/")) / len(flat), sum(len(line) > 1 for line in lines) / len(lines)

    times_and_divide, compound = shares("train")
    other_times_and_divide, other_compound = shares("ood_operations")
    assert other_times_and_divide > 2 * times_and_divide
    assert other_compound > 2 * compound


def test_pretrain_train_and_the_rest_share_no_question():
    """Also across seeds: it is the text of a question that decides which splits may use it."""
    pretrain, train, test = (
        {problem.question for problem in generate(split, 5000, seed)}
        for split, seed in (("pretrain", 0), ("train", 0), ("test", 1))
    )
    others = {problem.question for split in OUT_OF_DISTRIBUTION for problem in generate(split, COUNT, 0)}
    assert not pretrain & train
    assert not (pretrain | train) & (test | others)
    assert not test & others


@pytest.mark.parametrize("split", SPLITS)
def test_the_text_of_a_question_decides_which_splits_may_use_it(split, problems):
    """The reason why splits stay apart; the chance of a repeat is so small that counting repeats would not show it."""
    low, high = {"pretrain": (0, 208), "train": (208, 232)}.get(split, (232, 256))
    for problem in problems[split]:
        assert low <= int(hashlib.sha256(problem.question.encode()).hexdigest()[:2], 16) < high


@pytest.mark.parametrize("split", SPLITS)
def test_questions_seldom_repeat_inside_a_split(split, problems):
    assert len({problem.question for problem in problems[split]}) > 0.95 * COUNT


def test_a_quarter_has_a_distractor_and_a_share_has_numbers_in_words(problems):
    texts = [problem.question for problem in problems["train"]]
    assert sum(bool(DISTRACTOR.search(text)) for text in texts) / COUNT == pytest.approx(0.25, abs=0.04)
    in_words = re.compile(rf"\b({'|'.join(WORDS)})\b")
    assert 0.25 < sum(bool(in_words.search(text)) for text in texts) / COUNT < 0.6
    assert any("a dozen" in text for text in texts)


def test_the_question_is_about_each_child_once_children_share(problems):
    shared = [problem.question for problem in problems["train"] if "are there now?" in problem.question]
    each = [problem.question for problem in problems["train"] if "each child have now?" in problem.question]
    assert each and not any("children share" in question for question in shared)
    assert shared and all("children share" in question.split("ach child")[0] for question in each)


def test_compact_questions_always_have_a_quantity_that_does_not_matter(problems):
    for problem in problems["ood_style"]:
        stated = re.findall(r"\d+", problem.question)
        assert len(stated) == num_operations(problem) + 2
        assert problem.question.count("?") == 1


def test_order_puzzles_follow_from_their_clues(problems):
    """Solved again from the clues: each person's position is one more than the number of people known above."""
    for problem in problems["ood_logic"]:
        pairs = re.findall(r"(\w+) is (\w+) than (\w+)\.", problem.question)
        above = {low: high for high, word, low in pairs if word in ("taller", "older", "faster")}
        above |= {low: high for low, word, high in pairs if word in ("shorter", "younger", "slower")}
        who = re.search(r"(?:what number is|than) (\w+)\?", problem.question).group(1)
        before = 0
        while who in above:
            who = above[who]
            before += 1
        assert len(above) == len(pairs)
        assert int(problem.gold) == (before + 1 if "what number" in problem.question else before)


def test_the_vocabulary_is_small(problems):
    text = " ".join(problem.question + " " + problem.solution for split in SPLITS for problem in problems[split])
    assert len(set(re.findall(r"[A-Za-z]+", text))) < 400
    for words in (story_templates.NAMES, story_templates.NOUNS, story_templates.VEHICLES):
        assert len(set(words)) == len(words) <= 60
        assert all(len(words) % divisor for divisor in range(2, len(words)))  # prime: `distinct` counts on it


def test_an_unknown_split_is_refused_with_the_names_of_the_known():
    with pytest.raises(ValueError, match="no split 'dev'.*" + ", ".join(SPLITS)):
        generate("dev", 1, seed=0)


@pytest.mark.parametrize("count", [-1, 1_000_001])
def test_a_count_beyond_the_ids_is_refused(count):
    with pytest.raises(ValueError, match=f"count is {count}"):
        generate("train", count, seed=0)


def test_the_command_prints_gsm8k_lines(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["word_problems", "--split", "test", "--count", "2"])
    main()
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [{"question": p.question, "answer": p.solution} for p in generate("test", 2, seed=0)]
    assert printed == expected
