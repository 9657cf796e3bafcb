"""Appendix D: what the teacher, the judge and the student are asked.

Every rule, field, score and placeholder of the appendix is here, in our own words; the placeholders keep the paper's
names. What the paper leaves open (the trace, Expand, Compress, Localize, all that the student reads) is marked A23.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches

from reference.records import AnswerKind, Message, Problem

# Appendix D.1.1, system prompt: the judge of I_i (Eq. 5)
IMPORTANCE_SYSTEM = """\
You judge mathematical reasoning, and you are impartial. You are shown a correct chain of thought. Your one task is to
rate the IMPORTANCE of a single step in it.

There is one criterion: once the step is gone, how much has the rest of the chain lost of its power to lead naturally
to the correct answer that you are given?

Rules
- The given correct answer is the target that you measure against.
- Go by what the shortened chain itself says.
- Where a link is missing, leave it missing: supply nothing from your own reasoning.
- A step earns nothing for looking mathematically advanced.
- A high score is only for a step without which the chain justifies that answer far less naturally.

The score is one of 0, 0.25, 0.5, 0.75, 1:
0: hardly anything is lost without the step
0.25: a little is lost
0.5: a moderate amount is lost
0.75: much is lost
1: the step is essential, and the reasoning falls apart without it

Reply with the number alone, without a reason or any other word."""

# Appendix D.1.1, user prompt
IMPORTANCE_USER = """\
Question: {question}

Correct answer: {gold_answer}

The complete correct chain:
{full_cot}

The chain without the step:
{cot_without_step}

The step that was taken out:
{step_to_score}

How badly does taking out this step hurt the chain's natural support for the correct answer? That answer is your
yardstick. Look at the shortened chain only, and do not close its gaps by thinking for it. Reply with one number:
0, 0.25, 0.5, 0.75 or 1."""

# Appendix D.1.2, system prompt: the judge of J_i (Eq. 7)
JUMPINESS_SYSTEM = """\
You are an expert on logical jumps in mathematical reasoning. Your one task is to rate how much trouble a
small language model would have in getting from the reasoning so far to the current step.

There is one criterion: how much connecting reasoning is absent between what came before and this step?

Rules
- Ask whether the step grows naturally out of what precedes it.
- Whether the step would be right, taken by itself, is not your concern.
- Leave the gaps open: build no bridge with reasoning of your own.
- The more abrupt the step, and the harder for a small model, the higher the score.

The score is one of 0, 0.25, 0.5, 0.75, 1:
0: no jump, the step follows smoothly and naturally
0.25: a very small jump
0.5: a moderate jump, part of the bridge is absent
0.75: a large jump, a small model would have trouble with it
1: an extreme jump, hardly any tie to what came before

Reply with the number alone, without a reason or any other word."""

# Appendix D.1.2, user prompt
JUMPINESS_USER = """\
Question: {question}

Reasoning so far:
{prev_context}

Current step:
{curr_step}

How far does the current step jump from the reasoning so far? Consider only whether a small model would find the
passage too abrupt, and leave the logic unrepaired. Reply with one number: 0, 0.25, 0.5, 0.75 or 1."""

# Appendix D.2, system prompt: the teacher's diagnosis e (Eqs. 16 and 17)
RECYCLING_SYSTEM = """\
You have long taught mathematics and reasoning, and you are known for finding exactly where a solution goes wrong.

You receive
question: the problem
ground_truth: its correct answer
student_response: one wrong response by a student
reference_cot: a reference line of reasoning, which may be absent

Analyse the error and obey every rule.
1. Reply with one valid JSON object and nothing besides it: no comment, no Markdown code fence.
2. The object has these seven fields, in whatever order, and no others. Each value is a string.
"first_error": the student's first wrong step or sentence, quoted word for word, in at most 120 characters
"error_type": a short name for the kind of error, for instance "misread the question", "calculation error",
  "missing case", "logical leap" or "unit conversion error"
"why_wrong": the reason that this step is wrong, in one or two sentences
"missing_knowledge": the central idea or pattern of reasoning that the student seems to be without
"minimal_fix": one sentence, a hint to the student on putting that very step right
"correct_next_step": the right step to take directly after the point of the error, and not the rest of the solution
"short_correct_reasoning": a correct line of reasoning from start to finish, kept brief, in 3 to 5 steps. Its last
  line is exactly #### <number>, where <number> stands for the final answer in digits and equals ground_truth: no unit,
  no currency sign, no thousands separator, no punctuation behind it
3. Treat the first error alone; list no further ones.
4. Keep it brief: no long chain of thought, and no return to intricate, advanced reasoning that the student could
  hardly take in at the first reading.
5. Every value is in English."""

# Appendix D.2, user prompt. The block below, or nothing, takes the last placeholder's line.
RECYCLING_USER = """\
[question]
{question}

[ground_truth]
{ground_truth}

[student_response]
{student_response}
{optional_reference_block}
Reply with the JSON object."""

# Appendix D.2, optional block
RECYCLING_REFERENCE = """
[reference_cot]
{reference_cot}
"""

# Eq. 4, the trace C (ambiguity A23): raw, as Section 3.2 wants it, with nothing said of the student who will learn
# from it. Headings as in Table 12, the last line as in Section 3.3.
SOLVE = """\
Solve the problem and show your reasoning. Begin each step of it with a heading: "### Step 1: " and its topic, then
"### Step 2: " and so on. The last line is exactly #### <number>, with the answer in digits: no unit, no currency sign,
no thousands separator.

{question}"""

# Section 3.2, Expand (ambiguity A23)
EXPAND = """\
A small language model is to learn this solution, but the current step jumps too far from the reasoning so far. Rewrite
the step: spell out the reasoning in between, so that each line follows from the one before it. Change no result and
go no further than the step does. Keep its heading, and a line that begins with ####, as they are. Reply with the
rewritten step alone.

Question: {question}

Reasoning so far:
{prev_context}

Current step:
{curr_step}"""

# Section 3.2, Compress (ambiguity A23)
COMPRESS = """\
Shorten this step of a solution: keep what it establishes, leave out repetition and commentary, and add nothing.
Keep a line that begins with #### as it is. Reply with the shortened step alone.

{curr_step}"""

# Section 3.2, Localize (ambiguity A23)
LOCALIZE = """\
A small language model is to learn this solution. The current step matters, and the model finds it hard to predict.
Rewrite the step in a form that is easier to learn: plain words, one small operation a line, the notation of the
reasoning so far. Change no result and go no further than the step does. Keep its heading, and a line that begins with
####, as they are. Reply with the rewritten step alone.

Question: {question}

Reasoning so far:
{prev_context}

Current step:
{curr_step}"""

# What the student reads in SFT, RL and evaluation (ambiguity A23). Short: a tiny model pays for every token.
STUDENT = """\
{question}
Think step by step. End with #### <number>"""

# What the student reads where the answer is an option or an expression: LogiQA and MATH500 (ambiguity A49)
STUDENT_LETTER = """\
{question}
Think step by step. End with #### <letter>"""

STUDENT_LATEX = """\
{question}
Think step by step. End with #### <answer>, the answer in LaTeX"""

# Figure 12, the input of a local sample that is a turn of its own (ambiguities A20, A23). The reasoning so far is empty
# before the first step.
NEXT_STEP = """\
{question}
Reasoning so far:
{prev_context}
Write only the next step."""

# Eq. 18, the input (q, o^-) of a diagnostic sample (ambiguity A23). Figure 14: the target is JSON.
DIAGNOSE_STUDENT = """\
{question}
Wrong response:
{student_response}
Find the first error. Reply in JSON."""

# Eq. 18, the input (q, p_pre, f_err, h_fix) of a repair sample (ambiguity A23)
REPAIR = """\
{question}
Reasoning so far:
{prefix}
First error: {first_error}
Hint: {minimal_fix}
Write the correct next step."""

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Prompts:
    """Appendix D: every template by name. Put your own texts in with `replace_templates`, which checks them."""

    importance_system: str = IMPORTANCE_SYSTEM
    importance_user: str = IMPORTANCE_USER
    jumpiness_system: str = JUMPINESS_SYSTEM
    jumpiness_user: str = JUMPINESS_USER
    recycling_system: str = RECYCLING_SYSTEM
    recycling_user: str = RECYCLING_USER
    recycling_reference: str = RECYCLING_REFERENCE
    solve: str = SOLVE
    expand: str = EXPAND
    compress: str = COMPRESS
    localize: str = LOCALIZE
    student: str = STUDENT
    student_letter: str = STUDENT_LETTER
    student_latex: str = STUDENT_LATEX
    next_step: str = NEXT_STEP
    diagnose_student: str = DIAGNOSE_STUDENT
    repair: str = REPAIR


def fill(template: str, values: Mapping[str, str]) -> str:
    r"""Put each value where the template has its `{name}`, in a single pass.

    All other braces stay, such as those of `\frac{1}{2}`; a value is never searched for placeholders in its turn.
    """
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def replace_templates(prompts: Prompts, texts: Mapping[str, str]) -> Prompts:
    """The prompts with some templates replaced by name. A new text has exactly the old one's placeholders.

    Raises:
        ValueError: an unknown name, a placeholder that is left out, or one that the template does not have.
    """
    current = asdict(prompts)
    for name, text in texts.items():
        if name not in current:
            nearest = get_close_matches(name, current, n=1, cutoff=0)[0]
            raise ValueError(f"there is no prompt named {name!r}; the nearest name is {nearest!r}")
        _check_placeholders(name, wanted=_placeholders(current[name]), found=_placeholders(text))
    return replace(prompts, **texts)


def _placeholders(template: str) -> list[str]:
    return sorted({match[0] for match in PLACEHOLDER.finditer(template)})


def _check_placeholders(name: str, wanted: list[str], found: list[str]) -> None:
    missing = ", ".join(placeholder for placeholder in wanted if placeholder not in found)
    if missing:
        raise ValueError(f"the prompt {name!r} lacks {missing}; write it where the value shall stand")
    unknown = ", ".join(placeholder for placeholder in found if placeholder not in wanted)
    if unknown:
        raise ValueError(
            f"the prompt {name!r} has {unknown}, but its placeholders are {', '.join(wanted) or 'none'}; "
            "braces that are meant as text take a space inside, as in { x }"
        )


def _ask(template: str, values: Mapping[str, str]) -> tuple[Message, ...]:
    return (Message("user", fill(template, values)),)


def importance_messages(
    prompts: Prompts, problem: Problem, trace: str, trace_without_step: str, step: str
) -> tuple[Message, ...]:
    """Eq. (5): J_imp(q, a*, C, C without s_i, s_i), as Appendix D.1.1 asks it."""
    values = {
        "question": problem.question,
        "gold_answer": problem.gold,
        "full_cot": trace,
        "cot_without_step": trace_without_step,
        "step_to_score": step,
    }
    return (Message("system", prompts.importance_system), *_ask(prompts.importance_user, values))


def jumpiness_messages(prompts: Prompts, problem: Problem, context: str, step: str) -> tuple[Message, ...]:
    """Eq. (7): J_jump(q, P_i, s_i), as Appendix D.1.2 asks it."""
    values = {"question": problem.question, "prev_context": context, "curr_step": step}
    return (Message("system", prompts.jumpiness_system), *_ask(prompts.jumpiness_user, values))


def recycling_messages(
    prompts: Prompts, problem: Problem, response: str, reference_cot: str | None = None
) -> tuple[Message, ...]:
    """Eq. (16): e = T(q, a*, o^-), as Appendix D.2 asks it, with a reference chain or without (ambiguity A52)."""
    block = "" if reference_cot is None else fill(prompts.recycling_reference, {"reference_cot": reference_cot})
    values = {"question": problem.question, "ground_truth": problem.gold, "student_response": response}
    user = _ask(prompts.recycling_user, {**values, "optional_reference_block": block})
    return (Message("system", prompts.recycling_system), *user)


def solve_messages(prompts: Prompts, problem: Problem) -> tuple[Message, ...]:
    """Eq. (4): asks the teacher for a trace C, without showing the gold answer."""
    return _ask(prompts.solve, {"question": problem.question})


def expand_messages(prompts: Prompts, problem: Problem, context: str, step: str) -> tuple[Message, ...]:
    """Algorithm 1, line 21: Expand(q, P_i, s_i)."""
    return _ask(prompts.expand, {"question": problem.question, "prev_context": context, "curr_step": step})


def compress_messages(prompts: Prompts, step: str) -> tuple[Message, ...]:
    """Algorithm 1, line 15: Compress(s_i)."""
    return _ask(prompts.compress, {"curr_step": step})


def localize_messages(prompts: Prompts, problem: Problem, context: str, step: str) -> tuple[Message, ...]:
    """Algorithm 1, line 26: Localize(q, P_i, s_i)."""
    return _ask(prompts.localize, {"question": problem.question, "prev_context": context, "curr_step": step})


def student_messages(prompts: Prompts, problem: Problem) -> tuple[Message, ...]:
    """q as the student reads it: in Eqs. 1, 11, 18 (new) and 22, and at evaluation, where other answers occur too."""
    templates = {AnswerKind.LETTER: prompts.student_letter, AnswerKind.LATEX: prompts.student_latex}
    return _ask(templates.get(problem.kind, prompts.student), {"question": problem.question})


def next_step_messages(prompts: Prompts, problem: Problem, context: str) -> tuple[Message, ...]:
    """Figure 12: the input (q, P_i) of a local sample that is a turn of its own (ambiguity A20)."""
    return _ask(prompts.next_step, {"question": problem.question, "prev_context": context})


def diagnose_student_messages(prompts: Prompts, problem: Problem, response: str) -> tuple[Message, ...]:
    """Eq. (18), diag: the input (q, o^-)."""
    return _ask(prompts.diagnose_student, {"question": problem.question, "student_response": response})


def repair_messages(
    prompts: Prompts, problem: Problem, prefix: str, first_error: str, minimal_fix: str
) -> tuple[Message, ...]:
    """Eq. (18), repair: the input (q, p_pre, f_err, h_fix)."""
    values = {"question": problem.question, "prefix": prefix, "first_error": first_error, "minimal_fix": minimal_fix}
    return _ask(prompts.repair, values)
