// The page of a cluster: requests the whole state every second and updates existing elements in place, so that
// focus and selections are kept. Data is only written as text, never as HTML.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const every = 1000;
  let timer = null;
  let loading = false;
  let load = true;

  function write(element, text) {
    const words = String(text);
    if (element.textContent !== words) element.textContent = words;
  }

  // Keeps one child of `parent` for each item, identified by its key.
  function keyed(parent, items, key, make, fill) {
    const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
    items.forEach((item, place) => {
      const name = String(key(item));
      const child = there.get(name) ?? make();
      there.delete(name);
      child.dataset.key = name;
      fill(child, item);
      if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
    });
    for (const gone of there.values()) gone.remove();
  }

  function made(name, classes = "") {
    const element = document.createElement(name);
    element.className = classes;
    return element;
  }

  function row(classes) {
    const element = made("tr");
    element.append(...classes.map((name) => made("td", name)));
    return element;
  }

  function figures(all) {
    const line = $("figures").firstElementChild;
    const shown = [all.lost, all.published, all.done, all.waiting, all.duplicates, all.unreplicated];
    shown.forEach((figure, place) => write(line.children[place], figure));
    line.firstElementChild.classList.toggle("some", all.lost > 0);
  }

  function describe(node) {
    if (node.state === "dead") return node.partitions ? `dead, its ${node.partitions} partitions wait for its replica` : "dead";
    return node.state === "replica" ? `replica of ${node.follows}` : `master, ${node.partitions} partitions`;
  }

  function nodes(all) {
    keyed($("nodes"), all, (node) => node.port, () => {
      const element = made("li");
      element.append(made("strong"), " ", made("span"), " ", made("button"));
      return element;
    }, (element, node) => {
      const [name, words, button] = element.children;
      write(name, node.port);
      write(words, describe(node));
      const dead = node.state === "dead";
      element.dataset.state = node.state;
      button.dataset.do = dead ? "bring-back" : "kill";
      button.dataset.node = node.port;
      button.className = dead ? "" : "danger";
      button.hidden = node.state === "replica";
      write(button, dead ? "Bring back" : "kill −9");
    });
    const options = (select, items, key, text) =>
      keyed($(select), items, key, () => made("option"), (element, item) => {
        element.value = key(item);
        write(element, text(item));
      });
    options("reshard-to", all.filter((node) => node.state === "master"), (node) => node.port, (node) => node.port);
  }

  function partitions(all) {
    keyed($("partitions"), all, (partition) => partition.number, () => row(["n", "", "n", "id", "n", "n", "n"]), (element, partition) => {
      const { number, node, is_served, slot, name, figures } = partition;
      const place = is_served ? node : `${node ?? "none"}, dead`;
      [number, place, slot, name, figures.published, figures.done, figures.waiting].forEach((text, at) => write(element.children[at], text));
      element.dataset.node = node;
      element.dataset.served = is_served;
    });
    keyed($("reshard-partition"), all, (partition) => partition.number, () => made("option"), (element, partition) => {
      element.value = partition.number;
      write(element, `${partition.number} on ${partition.node}`);
    });
  }

  function draw(state) {
    figures(state.figures);
    nodes(state.nodes);
    partitions(state.partitions);
    keyed($("news"), state.news, (news) => news.text, () => made("li"), (element, news) => {
      write(element, `${news.text} · ${Math.round(news.age_ms / 1000)} s ago`);
    });
    load = state.load;
    write($("load"), load ? "Stop orders" : "Start orders");
    const { published, lost } = state.figures;
    $("status").dataset.state = lost === 0 ? "good" : "bad";
    write($("status"), `${published} published, lost = ${lost}`);
  }

  async function refresh() {
    clearTimeout(timer);
    if (loading) return;
    loading = true;
    try {
      const answer = await fetch("state");
      const state = await answer.json();
      if (!answer.ok) throw new Error(state.error);
      draw(state);
    } catch (error) {
      $("status").dataset.state = "bad";
      write($("status"), `cannot read the state: ${error.message}`);
    } finally {
      loading = false;
      if (!document.hidden) timer = setTimeout(refresh, every);
    }
  }

  function show(action, ok, answer) {
    const words = made("pre", ok ? "" : "error");
    words.textContent = ok ? JSON.stringify(answer, null, 2) : answer.error ?? String(answer);
    Object.assign($("result").dataset, { action, ok });
    $("result").replaceChildren(words);
  }

  async function send(action, fields) {
    Object.assign($("result").dataset, { action, ok: "" });
    $("result").replaceChildren(Object.assign(made("p", "soft"), { textContent: `${action} …` }));
    try {
      const response = await fetch(action, { method: "POST", body: new URLSearchParams(fields) });
      const text = await response.text();
      let answer;
      try { answer = JSON.parse(text); } catch { answer = { error: text }; }
      show(action, response.ok, answer);
    } catch (error) {
      show(action, false, { error: error.message });
    }
    await refresh();
  }

  document.addEventListener("submit", (event) => {
    event.preventDefault();
    send(event.target.dataset.action, Object.fromEntries(new FormData(event.target)));
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (button) send(button.dataset.do, { node: button.dataset.node });
  });

  $("load").addEventListener("click", () => send("load", { on: load ? "0" : "1" }));
  document.addEventListener("visibilitychange", refresh);
  refresh();
})();
