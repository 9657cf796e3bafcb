// What the inspector's three tabs show of one problem: `index[chosen]` and its `detail`, which page.js keeps.
// Every text of the run goes into text nodes; nothing here makes HTML of a string.
"use strict";

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

/** One sentence in place of what is not there, or above what is. */
function note(sentence) {
  return [make("p", {class: "note"}, sentence)];
}

/** Eq. (14)'s side of [sum of the rewards, G], and whether there is anything to compare in the group. */
function outcome(rewards) {
  if (!rewards) return "";
  if (rewards[0] === 0) return "all-zero";
  return rewards[0] === rewards[1] ? "all-one" : "mixed";
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
  const why = index[chosen].group === "hard" ? "Bridge has given nothing for it" : "Bridge works on hard problems only";
  return [...note(`The teacher's trace as it is, ${detail.trace.tokens} tokens: ${why}.`), ...steps];
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
    ...(one.written ? [make("p", {class: "label"}, "has written so far"), make("div", {class: "text off"}, one.written)] : []),
    make("p", {class: "label"}, one.written ? "and learns to write next" : "and learns to write"),
    make("div", {class: "text"}, one.answer),
    make("p", {class: "label"}, one.ends_turn ? "and to end its turn" : "its turn does not end here"));
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
  const reasons = new Set(groups.flatMap((group) => group.responses.map((one) => one.unshaded)));
  const shared = reasons.size === 1 ? [...reasons][0] : null; // said once where it holds for all
  const head = shared ? note(`The tokens are not shaded: ${shared}.`) : [legend()];
  return [...head, ...groups.flatMap((group) => {
    const right = group.responses.filter((response) => response.reward > 0).length;
    const kind = outcome([right, group.responses.length]);
    const side = right ? "into the Consolidation Set" : "into the failures";
    return [make("p", {class: "group-head"}, `Iteration ${group.iteration}: ${right} of ${group.responses.length} right `,
      make("span", {}, `${kind}, ${side} (Eq. 14)`)), ...group.responses.map((one, at) => response(one, at, !shared))];
  })];
}

function response(one, at, withReason) {
  const right = one.reward > 0;
  const label = make("p", {class: "label"}, `${at + 1} · `,
    make("b", {class: right ? "right-answer" : "wrong-answer"}, right ? "✓ reward 1" : "✗ reward 0"),
    ` · advantage ${number(one.advantage)} · ${one.tokens} tokens${one.finished ? "" : " · cut off at the limit"}`);
  const text = make("div", {class: "text"}, ...tokens(one));
  return make("div", {class: "response"}, label, text, one.unshaded && withReason ? make("p", {class: "label"}, `Not shaded: ${one.unshaded}.`) : null);
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
