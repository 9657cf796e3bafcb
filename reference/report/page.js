// The inspector's list, its keys, and the page around it. tabs.js stands before it in the same script.

const meta = JSON.parse(document.getElementById("meta").textContent);
const index = JSON.parse(document.getElementById("index").textContent);
const lines = document.getElementById("details").textContent.split("\n");
const byId = (id) => document.getElementById(id);
const list = byId("list"), panel = byId("panel"), search = byId("search");
const filters = ["group", "action", "rollouts", "story"].map((name) => byId(`filter-${name}`));
const tabs = [1, 2, 3].map((number) => byId(`tab-${number}`));
const CHUNK = 120; // lines of the list that are made at a time
let found = [], chosen = null, detail = null, tab = 0;

// The list

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
  if (one.paper) facts.push("mathematics and scores are the paper's (Table 12, Figures 11 and 12), the wording is ours");
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
