"""The page in a headless Chromium: it works, says no error, asks for nothing, and runs no text as code."""

import json
from pathlib import Path

import pytest

from reference.config import TINY
from reference.experiments.claims import claims
from reference.experiments.effects import Effect
from reference.experiments.page import write_page
from reference.experiments.results import ClaimLine, Line
from reference.experiments.tables import read_csv
from reference.experiments.variants import experiments
from reference.report.page import write_report
from tests.chromium import Browser
from tests.experiments.test_results import DONE
from tests.report.conftest import write_lines

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.driver.quit()


@pytest.fixture
def page(browser, small_run):
    browser.open(small_run / "report.html")
    return browser


def diagnosed(small_run):
    return json.loads((small_run / "iter1/4_recycle/diagnosed.jsonl").read_text().split("\n")[0])


def test_everything_works_without_an_error_and_without_a_request(page, small_run):
    for number in range(13):
        for key in "123":
            page.press(key)
            assert page.run("return panel.childElementCount") > 0, (number, key)
        page.press("j")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.run("window.scrollTo(0, document.body.scrollHeight)")
    assert page.driver.get_log("browser") == []
    assert page.requests() == [(small_run / "report.html").as_uri()]


def test_tables_and_figures_are_on_the_page(page):
    assert page.run("return document.querySelectorAll('#results table').length") == 6
    sizes = page.run(
        "return [...document.querySelectorAll('figure svg')].map((one) => [one.clientWidth, one.clientHeight])"
    )
    assert len(sizes) == 10 and all(width > 250 and height > 80 for width, height in sizes)
    assert page.run("return document.querySelectorAll('.stages tbody tr').length") == 17


def test_carla_comes_first_with_the_leaves_of_table_12(page):
    assert "Carla" in page.text("#question")
    actions = page.run("return [...document.querySelectorAll('.leaf .mark')].map((mark) => mark.textContent)")
    assert actions == ["localize", "localize", "keep", "localize", "compress"]
    assert "I > τI, J ≤ τJ, D > τD → line 26" in page.text(".leaf")
    assert "1.41 > 1.26" in page.text(".step-head")


def test_carla_shows_each_step_before_and_after_and_its_three_local_samples(page):
    assert "the wording is ours" in page.text(".facts")
    steps = page.run("return [...document.querySelectorAll('.step')].map((step) => step.textContent)")
    assert ["After: the same." in step for step in steps] == [True] * 4 + [False]
    assert ["local sample" in step for step in steps] == [True, True, False, True, False]
    after = page.run("return [...document.querySelectorAll('.pair .text')].map((text) => text.textContent)")
    assert len(after) == 2 and "Check" in after[0] and after[1] == "#### 15"


def test_a_step_shows_its_text_before_and_after_with_the_difference_marked(page, small_run):
    traces = [json.loads(line) for line in (small_run / "3_bridge/bridged.jsonl").read_text().splitlines()]
    page.choose(traces[0]["problem_id"])
    steps = page.run(
        "return [...document.querySelectorAll('.step')].map((step) => [...step.querySelectorAll('.pair .text')]"
        ".map((text) => text.textContent))"
    )
    seen = 0
    for step, shown in zip(traces[0]["steps"], steps, strict=True):
        if step["rewritten"] and step["rewritten"] != step["original"]:
            assert shown == [step["original"].strip(), step["rewritten"].strip()]
            seen += 1
    assert seen and page.run("return document.querySelectorAll('.text ins, .text del').length") > 0
    assert page.text(".step-head").startswith("Step 1importance")


@pytest.mark.parametrize(
    ("before", "after", "gone", "new"),
    [
        ("Hal has 5 toys.", "Dan has 5 toys.", "Hal", "Dan"),
        ("a b c", "a b c", "", ""),
        ("", "new", "", "new"),
        ("all of it", "", "all of it", ""),
        ("x = 1", "y - 2", "x = 1", "y - 2"),  # a shared space or sign is no likeness
    ],
)
def test_the_difference_of_two_texts_gives_both_back(page, before, after, gone, new):
    parts = page.run("return difference(arguments[0], arguments[1])", before, after)
    assert "".join(text for side, text in parts if side != "ins") == before
    assert "".join(text for side, text in parts if side != "del") == after
    assert "".join(text for side, text in parts if side == "del") == gone
    assert "".join(text for side, text in parts if side == "ins") == new


def test_rollouts_show_rewards_advantages_and_shaded_tokens(page, small_run):
    lines = (small_run / "iter1/2_filter/rollouts.jsonl").read_text().splitlines()
    group = next(group for group in map(json.loads, lines) if 0 < sum(group["rewards"]) < 4)
    page.choose(group["problem_id"])
    page.press("2")
    shown = page.run("return [...document.querySelectorAll('.response')].map((one) => one.textContent)")[:4]
    for text, response, reward in zip(shown, group["responses"], group["rewards"], strict=True):
        assert response["text"] in text and f"reward {reward:.0f}" in text and "advantage" in text
    shades = page.run(
        "return [...document.querySelectorAll('.response')[0].querySelectorAll('.token')]"
        ".map((token) => [token.title, getComputedStyle(token).backgroundColor])"
    )
    likely = [shade for title, shade in shades if title == "log p = −0.00" or title == "log p = 0.00"]
    assert len(shades) == len(group["responses"][0]["token_ids"])
    assert set(likely) <= {"rgba(0, 0, 0, 0)"} and len({shade for _, shade in shades}) > 2


def test_a_run_without_log_probabilities_says_so_once(browser, copied):
    for number in (1, 2):
        path = copied / f"iter{number}/2_filter/rollouts.jsonl"
        groups = [json.loads(line) for line in path.read_text().splitlines()]
        for response in [response for group in groups for response in group["responses"]]:
            del response["logprobs"]
        path.write_text("".join(json.dumps(group) + "\n" for group in groups))
    browser.open(write_report(copied))
    browser.choose("train-000000")
    browser.press("2")
    assert browser.text("#panel").count("before log-probabilities were kept") == 1
    assert browser.run("return document.querySelectorAll('.response').length") == 8


def test_a_failure_shows_its_candidates_the_diagnosis_and_three_samples(page, small_run):
    record = diagnosed(small_run)
    page.choose(record["problem_id"])
    page.press("3")
    chosen = page.text(".score-table tr.chosen")
    assert "the near miss" in chosen and f"{record['near_miss_score']:.3f}" in chosen
    told = page.text(".diagnosis")
    assert all(value in told for value in record["diagnosis"].values())
    titles = page.run("return [...document.querySelectorAll('.sample summary')].map((one) => one.textContent)")
    assert [title.split(":")[0] for title in titles] == ["Ddiag", "Drepair", "Dnew"]
    assert record["diagnosis"]["first_error"] == page.text(".text mark")


def test_search_and_filters_narrow_the_list(page, small_run):
    assert len(page.rows()) == 13 and page.text("#found") == "13 of 13"
    page.press("/", *"train-000003")
    assert page.rows() == ["row-4"] and "train-000003" in page.text("#question")
    page.press(*["\ue003"] * 12, *"no such problem")
    assert page.rows() == [] and page.text("#found") == "0 of 13"
    page.run("search.value = ''; search.dispatchEvent(new Event('input'))")
    graded = [json.loads(line) for line in (small_run / "1_difficulty/difficulty.jsonl").read_text().splitlines()]

    def filtered(name, value):
        page.run(
            "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
            "one.dispatchEvent(new Event('change'))",
            name,
            value,
        )
        return len(page.rows())

    hard = sum(record["group"] == "hard" for record in graded)
    assert filtered("filter-group", "hard") == hard and filtered("filter-action", "expand") < hard
    assert filtered("filter-group", "") and filtered("filter-action", "") == 13
    counts = json.loads((small_run / "iter1/2_filter/receipt.json").read_text())["counts"]
    for kind in ("all-zero", "mixed", "all-one"):
        assert filtered("filter-rollouts", f"1 {kind}") == counts[kind]
    assert filtered("filter-rollouts", "") == 13 and filtered("filter-story", "failed") == counts["all-zero"]
    assert filtered("filter-story", "rejected") == 0


def test_the_keyboard_moves_through_problems_and_tabs(page):
    def selected():
        return page.run("return [...document.querySelectorAll('[aria-selected=true]')].map((one) => one.id)")

    assert selected() == ["row-0", "tab-1"]
    page.press("j", "j", "k", "2")
    assert selected() == ["row-1", "tab-2"]
    page.press("/")
    assert page.run("return document.activeElement.id") == "search"
    page.press("\ue015")  # the down arrow moves while one types
    assert selected() == ["row-2", "tab-2"]
    page.press("j", "\ue00c")  # a letter is a letter there, until the escape key
    assert page.run("return document.activeElement.id") != "search" and page.text("#found") == "13 of 13"
    before = page.run("return chosen")
    page.press("k")
    assert page.run("return chosen") == before - 1
    page.press("?")
    assert page.run("return document.getElementById('keys').open")
    page.press("\ue00c")
    assert not page.run("return document.getElementById('keys').open")
    page.press("?")
    page.run("document.querySelector('#keys button').click()")
    assert not page.run("return document.getElementById('keys').open")
    page.run("document.getElementById('tab-2').focus()")
    page.press("\ue014")
    assert selected()[-1] == "tab-3" and page.run("return document.activeElement.id") == "tab-3"


def test_the_next_problem_begins_at_its_top(page, small_run):
    page.choose(diagnosed(small_run)["problem_id"])
    page.press("2")
    page.run("window.scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
    page.press("k")
    assert 0 <= page.run("return document.getElementById('detail').getBoundingClientRect().top") < 200


def test_no_text_runs_as_code(browser, spoiled, hostile):
    browser.open(write_report(spoiled))
    for _ in range(13):
        browser.press("1", "2", "3", "j")
    browser.choose("train-000000")
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.images.length") == 0
    assert browser.run("return document.querySelectorAll('script').length") == 4
    browser.press("2")
    shown = "return document.querySelector('.response .text').textContent.includes(arguments[0])"
    assert browser.run(shown, "<script>window.hacked = 1</script><img src=x") and browser.run(shown, "]]>-->")
    assert browser.driver.get_log("browser") == [] and len(browser.requests()) == 1


def test_a_thousand_problems_open_within_a_second(browser, thousand):
    path = write_report(thousand)
    times = []
    for _ in range(3):
        browser.open(path)
        times.append(
            browser.run(
                "const {navigationStart, domContentLoadedEventEnd} = performance.timing;"
                "const paint = performance.getEntriesByName('first-contentful-paint')[0];"
                "return Math.max(domContentLoadedEventEnd - navigationStart, paint.startTime)"
            )
        )
    print(f"{path.stat().st_size / 1e6:.1f} MB, {min(times):.0f} ms")
    assert browser.text("#found") == "1001 of 1001" and len(browser.rows()) < 200
    assert min(times) < 1000, times
    browser.run("list.scrollTop = list.scrollHeight; list.dispatchEvent(new Event('scroll'))")
    assert len(browser.rows()) > 200
    browser.press("/", *"train-000999")
    assert browser.rows() == ["row-1000"] and "train-000999" in browser.text("#question")


def test_a_phone_never_scrolls_sideways(browser, small_run):
    browser.open(small_run / "report.html", width=390, height=844)
    for key in "123":
        browser.choose(diagnosed(small_run)["problem_id"])
        browser.press(key)
        assert browser.run("return document.documentElement.scrollWidth") == 390


CONTRASTS = """
    const rgba = (value) => value.match(/[\\d.]+/g).map(Number).concat(1).slice(0, 4);
    const over = ([r, g, b, a], below) => [r, g, b].map((part, at) => a * part + (1 - a) * below[at]);
    const light = (colour) => colour.map((part) => part / 255).map((part) =>
      part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
      .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    function ground(element) {
      if (!element) return [255, 255, 255];
      const own = rgba(getComputedStyle(element).backgroundColor);
      return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement));
    }
    const found = {};
    for (const element of document.querySelectorAll("body *")) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      if (!own || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION", "title"].includes(element.tagName)) continue;
      if (!element.getClientRects().length) continue;
      const style = getComputedStyle(element), svg = element.namespaceURI.endsWith("svg");
      const behind = ground(element), [a, b] = [over(rgba(svg ? style.fill : style.color), behind), behind].map(light);
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const name = `${element.tagName}.${element.getAttribute("class")} in ${element.closest("[class]")?.className}`;
      found[name] = Math.min(found[name] || 99, contrast);
    }
    return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser, small_run, scheme):
    browser.open(small_run / "report.html", prefers_color_scheme=scheme)
    browser.choose(diagnosed(small_run)["problem_id"])
    for key in "123":
        browser.press(key)
        contrasts = browser.run(CONTRASTS)
        assert len(contrasts) > 30
        assert {name: value for name, value in contrasts.items() if value < 4.5} == {}


def test_the_button_turns_the_scheme_over(page):
    ground = "return getComputedStyle(document.body).backgroundColor"
    before = page.run(ground)
    page.run("document.getElementById('theme').click()")
    assert page.run(ground) != before
    page.press("d")
    assert page.run(ground) == before


def test_print_leaves_out_what_paper_cannot_do(browser, small_run):
    browser.open(small_run / "report.html", print=True, prefers_color_scheme="dark")
    shown = "return document.querySelector(arguments[0]).getClientRects().length > 0"
    assert [browser.run(shown, name) for name in ("nav", ".browse", "[role=tablist]")] == [False] * 3
    assert [browser.run(shown, name) for name in ("#results table", "figure", "#detail", ".print-only")] == [True] * 4
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def experiments_page(tmp_path_factory):
    """The page of the results that docs/results.md is about, with rewards for its last figure."""
    out = tmp_path_factory.mktemp("experiments")
    results = Path(__file__).parents[2] / "docs" / "results"
    lines = [line for name in experiments(TINY) for line in read_csv(results / f"{name}.csv", Line)]
    for t in range(1, 5):
        folder = out / "seed-1" / "variants" / "four-iterations" / f"iter{t}" / "3_grpo"
        folder.mkdir(parents=True)
        folder.joinpath("receipt.json").write_text(DONE)
        rewards = [{"reward": 0.3 + 0.01 * step + 0.05 * t} for step in range(12)]
        write_lines(folder / "metrics.jsonl", rewards)
    verdicts = read_csv(results / "claims.csv", ClaimLine)
    effects = read_csv(results / "readings-effects.csv", Effect)
    return write_page(out, experiments(TINY), lines, verdicts, effects, [1, 2, 3])


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_of_experiments_fits_and_asks_for_nothing(browser, experiments_page, width):
    browser.open(experiments_page, width=width)
    assert browser.driver.get_log("browser") == [] and browser.requests() == [experiments_page.as_uri()]
    assert browser.run("return document.documentElement.scrollWidth") <= width
    cut = browser.run(
        "return [...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    )
    assert width == 390 or cut == 0  # a phone scrolls its tables
    assert browser.run("return document.querySelectorAll('#claims tbody tr').length") == len(claims(TINY))
    assert browser.run("return document.querySelectorAll('#tables table').length") == len(experiments(TINY))
    figures = browser.run("return [...document.querySelectorAll('figure svg')].map((one) => one.clientHeight)")
    assert len(figures) == len(experiments(TINY)) + 2 and min(figures) > 80
