// The inspector. Every text of the run goes into text nodes; nothing here makes HTML of a string.
"use strict";

const meta = JSON.parse(document.getElementById("meta").textContent);
const index = JSON.parse(document.getElementById("index").textContent);
const lines = document.getElementById("details").textContent.split("\n");
const byId = (id) => document.getElementById(id);
const list = byId("list"), panel = byId("panel"), search = byId("search");
const filters = ["group", "action", "rollouts", "story"].map((name) => byId(`filter-${name}`));
const tabs = [1, 2, 3].map((number) => byId(`tab-${number}`));
const CHUNK = 120; // lines of the list that are made at a time
let found = [], chosen = null, detail = null, tab = 0;

/** An element: `make("p", {class: "note"}, "text", another)`. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function number(value, decimals = 2) {
  return value == null ? "–" : value.toFixed(decimals).replace("-", "−");
}

// The list

function outcome(rewards) {
  if (!rewards) return "";
  if (rewards[0] === 0) return "all-zero";
  return rewards[0] === rewards[1] ? "all-one" : "mixed";
}

const texts = index.map((one) => `${one.id}\n${one.question}`.toLowerCase());

function matches(one, at) {
  const [group, action, rollouts, story] = filters.map((filter) => filter.value);
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.every((word) => texts[at].includes(word))) return false;
  if (group && one.group !== group) return false;
  if (action && !one.actions.includes(action)) return false;
  if (rollouts) {
    const [iteration, kind] = rollouts.split(" ");
    if (outcome(one.rollouts[Number(iteration) - 1]) !== kind) return false;
  }
  if (story === "bridged") return one.actions.length > 0;
  return !story || one[story];
}

function strip(actions) {
  const marks = actions.map((action) => make("i", {class: action, title: action}, action[0].toUpperCase()));
  return make("span", {class: "strip", role: "img", "aria-label": actions.join(", ")}, ...marks);
}

function row(at) {
  const one = index[at];
  const rewards = one.rollouts.map((pair) => (pair ? `${pair[0]}/${pair[1]}` : "–")).join(" → ");
  const top = make("div", {class: "top"}, make("span", {}, one.paper ? "the paper's Table 12" : one.group || "–"),
    strip(one.actions), make("span", {class: "right"}, one.rejected ? "rejected " : "", one.paper ? "" : rewards));
  const asked = make("div", {class: "asked"}, one.question);
  return make("li", {role: "option", id: `row-${at}`, "aria-selected": at === chosen ? "true" : "false"}, top, asked);
}

function addRows(upTo) {
  const begin = list.childElementCount;
  list.append(...found.slice(begin, Math.max(begin, upTo)).map(row));
}

function filterList() {
  found = index.map((_, at) => at).filter((at) => matches(index[at], at));
  list.replaceChildren();
  list.scrollTop = 0;
  byId("found").textContent = `${found.length} of ${index.length}`;
  addRows(CHUNK);
  if (!found.length) list.append(make("li", {class: "empty"}, "Nothing is like that."));
  else if (!found.includes(chosen)) choose(found[0]);
}

function choose(at) {
  const before = byId(`row-${chosen}`);
  if (before) before.setAttribute("aria-selected", "false");
  chosen = at;
  detail = JSON.parse(lines[at]);
  addRows(found.indexOf(at) + 1);
  const now = byId(`row-${at}`);
  if (now) {
    now.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", now.id);
    const [top, bottom] = [now.offsetTop - list.offsetTop, now.offsetTop - list.offsetTop + now.offsetHeight];
    if (top < list.scrollTop) list.scrollTop = top;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }
  showProblem();
}

/** Who is far down in one problem begins the next at its top. */
function bringUp() {
  const article = byId("detail");
  if (article.getBoundingClientRect().top < 0) article.scrollIntoView({behavior: "instant"});
}

function move(by) {
  if (!found.length) return;
  const at = Math.min(found.length - 1, Math.max(0, found.indexOf(chosen) + by));
  choose(found[at]);
}

// One problem

function showProblem() {
  const one = index[chosen], facts = [`gold answer ${one.gold}`];
  if (detail.graded) {
    facts.push(`${detail.graded.num_correct} of ${detail.graded.num_samples} samples of the base model right`);
  }
  const name = one.paper ? "Carla's water (the paper's Table 12)" : one.id;
  byId("question").replaceChildren(
    make("h3", {}, name, one.group ? make("span", {class: "mark"}, one.group) : null),
    make("p", {class: "asked"}, one.question),
    make("p", {class: "facts"}, facts.join(" · ")),
    ...detail.rejected.map((item) => make("p", {class: "callout"}, `Rejected in ${item.stage}: ${item.reason}`)));
  const empty = [!detail.bridge && !detail.trace, !detail.rollouts.some(Boolean), !detail.failures.some(Boolean)];
  tabs.forEach((button, at) => button.toggleAttribute("data-empty", empty[at]));
  showTab(tab);
}

function showTab(at) {
  tab = at;
  tabs.forEach((button, other) => {
    button.setAttribute("aria-selected", other === at ? "true" : "false");
    button.tabIndex = other === at ? 0 : -1;
  });
  panel.setAttribute("aria-labelledby", `tab-${at + 1}`);
  panel.replaceChildren(...[traceTab, rolloutsTab, failureTab][at]());
  bringUp();
}

function note(sentence) {
  return [make("p", {class: "note"}, sentence)];
}

// Tab 1: the trace, step by step

function traceTab() {
  if (detail.bridge) {
    const thresholds = detail.thresholds || meta.thresholds;
    return detail.bridge.steps.map((step, at) => bridgedStep(step, at, thresholds));
  }
  if (!detail.trace) return note(index[chosen].group === "simple"
    ? "A simple problem: the teacher is not asked for a trace of it." : "There is no trace of this problem.");
  const steps = detail.trace.steps.map((text, at) => make("div", {class: "step"},
    make("div", {class: "step-head"}, make("strong", {}, `Step ${at + 1}`)), make("div", {class: "text"}, text.trim())));
  return [...note(`The teacher's trace as it is, ${detail.trace.tokens} tokens: Bridge works on hard problems only.`), ...steps];
}

const SCORES = [["importance", "I", 1], ["jumpiness", "J", 1], ["difficulty", "D", null]];

function meter(name, letter, most, value, threshold) {
  const above = value > threshold, whole = most || Math.max(2.5 * threshold, value) || 1;
  const place = (part) => `${Math.min(100, (100 * part) / whole).toFixed(1)}%`;
  const bar = make("i", {}), mark = make("u", {title: `threshold ${number(threshold, 3)}`});
  bar.style.width = place(value);
  mark.style.left = place(threshold);
  const sign = above ? ">" : "≤";
  return make("div", {class: above ? "score above" : "score", title: `${name} ${value} ${sign} ${threshold}`},
    make("span", {}, name), make("b", {}, `${number(value)} ${sign} ${number(threshold)}`),
    make("div", {class: "meter"}, bar, mark));
}

function leaf(step, thresholds) {
  const tests = SCORES.flatMap(([name, letter]) => {
    const sign = step.scores[name] > thresholds[name] ? ">" : "≤";
    return [`${letter} ${sign} τ`, make("sub", {}, letter), letter === "D" ? "" : ", "];
  });
  return make("p", {class: "leaf"}, make("span", {class: `mark ${step.action}`}, step.action), ...tests,
    ` → line ${meta.lines[step.action]} of Algorithm 1`);
}

function bridgedStep(step, at, thresholds) {
  const meters = SCORES.map(([name, letter, most]) => meter(name, letter, most, step.scores[name], thresholds[name]));
  const body = make("div", {}, leaf(step, thresholds), ...beforeAndAfter(step));
  if (step.local) body.append(sample(["local sample: the step alone, from what precedes it"], step.local));
  return make("div", {class: "step"}, make("div", {class: "step-head"}, make("strong", {}, `Step ${at + 1}`), ...meters), body);
}

function beforeAndAfter(step) {
  const before = step.original.trim();
  if (step.elsewhere) return [make("div", {class: "text"}, before), make("p", {class: "label"}, `After: ${step.elsewhere}.`)];
  if (step.rewritten == null) return [make("div", {class: "text off"}, before), make("p", {class: "label"}, "After: nothing.")];
  const after = step.rewritten.trim();
  if (after === before) return [make("div", {class: "text"}, before), make("p", {class: "label"}, "After: the same.")];
  const parts = difference(before, after);
  const marked = (kind) => parts.filter(([side]) => side === "both" || side === kind)
    .map(([side, text]) => (side === "both" ? text : make(kind, {}, text)));
  return [make("div", {class: "pair"},
    make("div", {}, make("p", {class: "label"}, "before"), make("div", {class: "text"}, ...marked("del"))),
    make("div", {}, make("p", {class: "label"}, "after"), make("div", {class: "text"}, ...marked("ins"))))];
}

/** What two texts share, by words: a list of ["both" | "del" | "ins", text]. */
function difference(before, after) {
  const a = before.match(/\s+|[\w]+|[^\w\s]/gu) || [], b = after.match(/\s+|[\w]+|[^\w\s]/gu) || [];
  if (a.length * b.length > 4e6) return [["del", before], ["ins", after]];
  const common = Array.from({length: a.length + 1}, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  const parts = [];
  const add = (side, text) => {
    if (parts.length && parts[parts.length - 1][0] === side) parts[parts.length - 1][1] += text;
    else parts.push([side, text]);
  };
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) add("both", a[i++], j++);
    else if (j >= b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) add("del", a[i++]);
    else add("ins", b[j++]);
  }
  return parts.flatMap(([side, text], at) => {
    const island = side === "both" && at > 0 && at < parts.length - 1 && !/\w{3}/.test(text) && text.length < 6;
    return island ? [["del", text], ["ins", text]] : [[side, text]]; // a shared sign or two between changes tells nothing
  });
}

function sample(title, one) {
  return make("details", {class: "sample"}, make("summary", {}, ...title),
    make("p", {class: "label"}, "the student is asked"), make("div", {class: "text"}, one.prompt),
    make("p", {class: "label"}, "and learns to answer"), make("div", {class: "text"}, one.answer));
}

// Tab 2: the rollouts

const RAMP = [[0.05, 0], [0.25, 0.12], [0.7, 0.24], [1.4, 0.38], [2.5, 0.54], [Infinity, 0.72]]; // nats, opacity

function shade(nats) {
  const opacity = RAMP.find(([most]) => nats <= most)[1];
  return opacity ? `rgba(var(--shade), ${opacity})` : "";
}

function legend() {
  const ramp = RAMP.map(([most, opacity]) => {
    const step = make("i", {title: most === Infinity ? "more" : `up to ${most} nats`});
    step.style.background = `rgba(var(--shade), ${opacity})`;
    return step;
  });
  return make("p", {class: "note"}, "Each token is shaded by how unlikely it was for the sampler: certain",
    make("span", {class: "ramp"}, ...ramp), "below 1 in 12. Point at a token for its log-probability.");
}

function rolloutsTab() {
  const groups = detail.rollouts.filter(Boolean);
  if (!groups.length) return note(index[chosen].paper ? "The paper prints no rollouts of it." : "No rollouts: no filter stage is done.");
  const shaded = groups.some((group) => group.responses.some((response) => response.centinats));
  return [shaded ? legend() : null, ...groups.flatMap((group) => {
    const right = group.responses.filter((response) => response.reward > 0).length;
    const kind = outcome([right, group.responses.length]);
    const side = right ? "into the Consolidation Set" : "into the failures";
    return [make("p", {class: "group-head"}, `Iteration ${group.iteration}: ${right} of ${group.responses.length} right `,
      make("span", {}, `${kind}, ${side} (Eq. 14)`)), ...group.responses.map(response)];
  })].filter(Boolean);
}

function response(one, at) {
  const right = one.reward > 0;
  const label = make("p", {class: "label"}, `${at + 1} · `,
    make("b", {class: right ? "right-answer" : "wrong-answer"}, right ? "✓ reward 1" : "✗ reward 0"),
    ` · advantage ${number(one.advantage)} · ${one.tokens} tokens${one.finished ? "" : " · cut off at the limit"}`);
  const text = make("div", {class: "text"}, ...tokens(one));
  return make("div", {class: "response"}, label, text, one.unshaded ? make("p", {class: "label"}, `Not shaded: ${one.unshaded}.`) : null);
}

function tokens(one) {
  if (!one.centinats) return [one.text];
  let begin = 0;
  return one.lengths.map((length, at) => {
    const nats = one.centinats[at] / 100, text = one.text.slice(begin, begin + length);
    begin += length;
    const token = make("span", {class: "token", title: `log p = ${number(-nats)}`}, text || (at === one.lengths.length - 1 ? " ∎" : ""));
    token.style.background = shade(nats);
    return token;
  });
}

// Tab 3: the failure

const FIELDS = [["error_type", "c err"], ["first_error", "f err"], ["why_wrong", "w err"], ["missing_knowledge", "k miss"],
  ["minimal_fix", "h fix"], ["correct_next_step", "s next"], ["short_correct_reasoning", "c new"]];
const TITLES = {diagnostic: ["D diag", "diagnose the wrong response"], repair: ["D repair", "go on from the correct prefix"],
  new: ["D new", "solve it anew"]};

/** `S neg`: a letter and its index, as a formula has them. */
function symbol(name) {
  const [letter, index] = name.split(" ");
  return make("span", {}, letter, index ? make("sub", {}, index) : null);
}

function failureTab() {
  const failures = detail.failures.filter(Boolean);
  if (failures.length) return failures.flatMap(failure);
  return note(index[chosen].paper ? "The paper prints no failure of it." : "No failure: in no iteration were all its responses wrong.");
}

function failure(one) {
  const head = make("p", {class: "group-head"}, `Iteration ${one.iteration}: every response wrong `);
  if (!one.candidates.length) return [head, ...note("No near miss: the thresholds of Table 9 were not measured.")];
  const parts = [head, make("p", {class: "label"}, "The candidates and their near-miss scores (Eqs. 30–34)"), scoreTable(one)];
  if (!one.diagnosed) return [...parts, ...note(one.recycles
    ? "It was not diagnosed: the item was rejected." : "It was not diagnosed: nothing is recycled here, as no SFT follows.")];
  return [...parts, ...diagnosis(one)];
}

function scoreTable(one) {
  const names = ["", "tokens", "S ℓ", "steps", "S s", "S f", "S neg"];
  const rows = one.candidates.map((candidate, at) => {
    const isChosen = one.diagnosed && one.diagnosed.chosen === at;
    const cells = [candidate.tokens, number(candidate.length_score), candidate.steps, number(candidate.step_score),
      number(candidate.format_score, 0), number(candidate.score, 3)];
    return make("tr", {class: isChosen ? "chosen" : null}, make("td", {}, isChosen ? `${at + 1}, the near miss` : `${at + 1}`),
      ...cells.map((cell) => make("td", {}, String(cell))));
  });
  const head = make("tr", {}, ...names.map((name) => make("th", {scope: "col"}, symbol(name))));
  return make("div", {class: "scroll"}, make("table", {class: "score-table"}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function diagnosis(one) {
  const {chosen: at, error, fields, samples} = one.diagnosed;
  const text = detail.rollouts[one.iteration - 1].responses[at].text;
  const marked = error ? [text.slice(0, error[0]), make("mark", {}, text.slice(...error)), text.slice(error[1])] : [text];
  const known = FIELDS.flatMap(([name, title]) => [
    make("dt", {}, `${name.replaceAll("_", " ")}, `, symbol(title)), make("dd", {}, fields[name])]);
  return [make("p", {class: "label"}, error ? "the near miss, its first error marked" : "the near miss; the first error is not located in it"),
    make("div", {class: "text"}, ...marked), make("p", {class: "label"}, "the teacher's diagnosis (Eq. 17)"),
    make("dl", {class: "diagnosis"}, ...known), make("p", {class: "label"}, "recycled into (Eqs. 18, 19)"),
    ...samples.map((item) => sample([symbol(TITLES[item.kind][0]), `: ${TITLES[item.kind][1]}`], item))];
}

// Keys, theme, sections

const KEYS = {
  "/": () => search.focus(), "j": () => move(1), "k": () => move(-1), "ArrowDown": () => move(1), "ArrowUp": () => move(-1),
  "1": () => showTab(0), "2": () => showTab(1), "3": () => showTab(2), "d": toggleTheme, "?": () => byId("keys").showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  const typing = event.target === search, inSelect = event.target.tagName === "SELECT";
  if (typing && event.key === "Escape") {
    event.preventDefault();
    search.value = "";
    search.blur();
    filterList();
  }
  if (inSelect || (typing && !event.key.startsWith("Arrow"))) return;
  const inList = event.target === list || typing;
  if (event.key.startsWith("Arrow") && !inList) return; // elsewhere the arrows scroll
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

function onTabKey(event) {
  if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
  showTab((tab + (event.key === "ArrowRight" ? 1 : 2)) % 3);
  tabs[tab].focus();
}

function begin() {
  for (let iteration = 1; iteration <= meta.iterations; iteration++) {
    for (const kind of ["all-zero", "mixed", "all-one"]) {
      filters[2].append(make("option", {value: `${iteration} ${kind}`}, `${kind} in iteration ${iteration}`));
    }
  }
  search.addEventListener("input", filterList);
  filters.forEach((filter) => filter.addEventListener("change", filterList));
  list.addEventListener("click", (event) => {
    const line = event.target.closest("[role=option]");
    if (!line) return;
    choose(Number(line.id.slice(4)));
    if (matchMedia("(max-width: 52rem)").matches) byId("detail").scrollIntoView(); // there it stands below the list
  });
  list.addEventListener("scroll", () => {
    if (list.scrollTop + 2 * list.clientHeight > list.scrollHeight) addRows(list.childElementCount + CHUNK);
  });
  tabs.forEach((button, at) => button.addEventListener("click", () => showTab(at)));
  tabs.forEach((button) => button.addEventListener("keydown", onTabKey));
  byId("theme").addEventListener("click", toggleTheme);
  byId("show-keys").addEventListener("click", KEYS["?"]);
  document.addEventListener("keydown", onKey);
  const links = [...document.querySelectorAll("nav a")];
  const seen = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    links.forEach((link) => link.toggleAttribute("aria-current", link.hash === `#${entry.target.id}`));
  }), {rootMargin: "-20% 0px -70% 0px"});
  document.querySelectorAll("main section").forEach((section) => seen.observe(section));
  filterList();
}

begin();
