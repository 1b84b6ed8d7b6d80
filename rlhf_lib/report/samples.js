// The browser of samples. Its data are in #samples-data (samples.py); every text goes in by textContent.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const holder = document.getElementById("samples-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const PAGE = 20;
  const byId = (name) => document.getElementById(name);
  const controls = ["mode", "source", "margin", "by", "search"].map((name) => byId(`samples-${name}`));
  const [mode, source, margin, by, search] = controls;
  const buttons = [...document.querySelectorAll("[data-order]")];
  const list = byId("samples-list");
  const more = byId("samples-more");
  const labels = Object.fromEntries(data.policies);
  let order = "wins";
  let hits = [];
  let shown = 0;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function options(select, entries) {
    for (const [value, label] of entries) {
      const option = element("option", "", label);
      option.value = value;
      select.append(option);
    }
  }

  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  const plain = (key, value) => (key === "length" ? String(value) : value.toFixed(2).replace("-", "−"));

  // How much better the first policy's answer is than the second's; null where either is not known.
  function gap(card) {
    const [first, second] = margin.value.split("-");
    const answers = card.answers[mode.value] || {};
    const values = [first, second].map((policy) => answers[policy] && answers[policy][by.value]);
    return values.some((value) => value === undefined) ? null : values[0] - values[1];
  }

  function holds(card, words) {
    const answers = [...Object.values(card.answers[mode.value] || {}), card.chosen];
    const texts = [...card.prompt.map((message) => message[1]), ...answers.map((answer) => (answer ? answer.text : ""))];
    return texts.some((text) => text.toLowerCase().includes(words));
  }

  function select() {
    const words = search.value.trim().toLowerCase();
    hits = data.prompts.filter(
      (card) => (!source.value || card.source === source.value) && (!words || holds(card, words)),
    );
    if (order === "data" || !margin.value) return;
    const sign = order === "wins" ? -1 : 1;
    const gaps = new Map(hits.map((card) => [card, gap(card)]));
    hits.sort((a, b) => {
      const [x, y] = [gaps.get(a), gaps.get(b)];
      if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last
      return sign * (x - y);
    });
  }

  function answer(kind, label, entry) {
    const made = element("section", `answer ${kind}`);
    const head = element("h4", "", label);
    if (!entry.finished) head.append(element("span", "cut", "cut at the limit"));
    const text = element("p", "text", entry.text || "(empty)");
    text.dir = "auto";
    const numbers = element("dl", "numbers");
    for (const [key, name] of Object.entries(data.numbers)) {
      if (entry[key] === undefined) continue;
      const pair = element("div");
      pair.append(element("dt", "", name), element("dd", "", plain(key, entry[key])));
      numbers.append(pair);
    }
    made.append(head, text, numbers);
    return made;
  }

  function prompt(card) {
    const made = element("div", "prompt");
    for (const [role, text] of card.prompt) {
      const message = element("p", "text");
      message.dir = "auto";
      if (card.prompt.length > 1 || role !== "user") message.append(element("span", "role", role));
      message.append(document.createTextNode(text));
      made.append(message);
    }
    return made;
  }

  function article(card) {
    const made = element("article", "card");
    made.tabIndex = -1;
    made.dataset.id = card.id;
    made.setAttribute("aria-label", `Prompt ${card.id}`);
    const head = element("header");
    head.append(element("span", "source", card.source));
    const value = margin.value ? gap(card) : null;
    if (value !== null) {
      const name = margin.selectedOptions[0].textContent;
      const sign = value > 0 ? " win" : value < 0 ? " loss" : "";
      head.append(element("span", `margin${sign}`, `${name}: ${signed(value)} ${data.numbers[by.value]}`));
      made.dataset.margin = value;
    }
    const answers = element("div", "answers");
    for (const [policy, label] of data.policies) {
      const entry = (card.answers[mode.value] || {})[policy];
      if (entry) answers.append(answer(policy, label, entry));
    }
    if (card.chosen) answers.append(answer("chosen", "chosen (data)", card.chosen));
    made.append(head, prompt(card), answers);
    return made;
  }

  function show(count) {
    const batch = hits.slice(shown, shown + count).map(article);
    list.append(...batch);
    shown += batch.length;
    more.hidden = shown >= hits.length;
    more.textContent = `Show ${Math.min(PAGE, hits.length - shown)} more`;
    byId("samples-status").textContent =
      `${hits.length} of ${data.prompts.length} prompts` + (shown < hits.length ? `, the first ${shown} shown` : "");
    return batch;
  }

  function refresh() {
    select();
    list.replaceChildren();
    shown = 0;
    show(PAGE);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.order === order));
  }

  options(mode, data.modes);
  options(source, [["", "all sources"], ...data.sources.map((name) => [name, name])]);
  options(margin, data.margins.map(([a, b]) => [`${a}-${b}`, `${labels[a]} − ${labels[b]}`]));
  options(by, Object.entries(data.numbers).filter(([key]) => ["gold", "judge", "reward"].includes(key)));
  for (const control of controls) control.addEventListener("input", refresh);
  for (const button of buttons) {
    button.disabled = !data.margins.length;
    button.addEventListener("click", () => {
      order = button.dataset.order;
      refresh();
    });
  }
  more.addEventListener("click", () => {
    const [first] = show(PAGE);
    if (first) first.focus();
  });
  refresh();
});
