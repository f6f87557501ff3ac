// The demo's page: asks for the state of everything every 1.5 seconds and writes what changed into the
// elements that are there, so that typed text, focus, caret and selection stay. Text is only ever
// written as text.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const every = 1500;
  let timer = null;
  let asking = false;

  function write(element, text) {
    const words = String(text);
    if (element.textContent !== words) element.textContent = words;
  }

  // The children of `parent`, one for each item, known by its key: made when it comes, removed when it
  // goes, and otherwise the same element as before.
  function keyed(parent, items, key, make, fill) {
    const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
    let before = null;
    for (const item of items) {
      const name = key(item);
      let child = there.get(name);
      there.delete(name);
      if (!child) {
        child = make(item);
        child.dataset.key = name;
      }
      fill(child, item);
      const next = before ? before.nextSibling : parent.firstChild;
      if (child !== next) parent.insertBefore(child, next);
      before = child;
    }
    for (const gone of there.values()) gone.remove();
  }

  function row(classes) {
    const element = document.createElement("tr");
    for (const name of classes) {
      const cell = document.createElement("td");
      if (name) cell.className = name;
      element.append(cell);
    }
    return element;
  }

  function cells(element, texts) {
    texts.forEach((text, place) => write(element.children[place], text));
  }

  function span(ms) {
    if (ms === null || ms === undefined) return "–";
    if (ms < 1000) return `${ms} ms`;
    return ms < 120000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60000)} min`;
  }

  function figures(groups) {
    keyed($("figures"), groups, (group) => group.name, () => row(["", "lost"].concat(Array(5).fill(""))),
      (element, group) => {
        const told = group.figures;
        cells(element, [group.name, told.lost, told.published, told.done, told.waiting, told.dead, told.doubled]);
        element.dataset.group = group.name;
        for (const name of ["published", "done", "waiting", "dead", "doubled", "lost"]) element.dataset[name] = told[name];
        element.children[1].classList.toggle("some", told.lost > 0);
      });
  }

  function badge(element, told) {
    element.className = `badge ${told.became}`;
    const mark = { done: "ack", failed: "failed", dropped: "drop" }[told.became];
    write(element, `${mark} ${told.event_type}`);
    element.title = `${told.entry_id}\norder_id ${told.order_id}\ncustomer ${told.customer}\namount ${told.amount}\ndelivery ${told.delivery_count}`;
  }

  function worker(group) {
    return (element, consumer) => {
      write(element.querySelector("strong"), consumer.label);
      element.querySelector("strong").title = consumer.name;
      element.dataset.consumer = consumer.label;
      const alive = element.querySelector(".alive");
      const word = consumer.paused ? "paused" : consumer.liveness;
      alive.className = `badge alive ${word}`;
      write(alive, word);
      const drop = element.querySelector(".drop");
      drop.hidden = consumer.will_drop === 0;
      write(drop, `will drop ${consumer.will_drop}`);
      write(element.querySelector(".numbers"),
        `pending ${consumer.pending} · idle ${span(consumer.idle_ms)} · processed ${consumer.processed}` +
        ` · failed ${consumer.failed} · dropped ${consumer.dropped} · claimed ${consumer.claimed ?? "?"}` +
        (consumer.here ? "" : ` · process ${consumer.process ?? "unknown"}`));
      keyed(element.querySelector(".recent"), consumer.recent, (told) => `${told.entry_id} ${told.delivery_count} ${told.became}`,
        () => document.createElement("span"), badge);
      const remove = element.querySelector("[data-do=remove]");
      remove.hidden = !consumer.here;
      element.querySelector("[data-do=crash]").hidden = !consumer.here && !consumer.label.startsWith("process-");
      for (const button of element.querySelectorAll("button")) {
        button.dataset.group = group.name;
        button.dataset.name = consumer.label;
      }
    };
  }

  function fresh(template) {
    return () => $(template).content.firstElementChild.cloneNode(true);
  }

  function groups(groups) {
    keyed($("groups"), groups, (group) => group.name, fresh("group-template"), (element, group) => {
      element.dataset.group = group.name;
      write(element.querySelector("h3"), group.name);
      element.querySelector(".paused").hidden = !group.paused;
      const lag = group.lag === null ? "?" : group.lag;
      write(element.querySelector(".facts-line"),
        `pending ${group.pending} · lag ${lag} · backlog ${group.backlog_exact ? "" : "≥ "}${group.backlog}` +
        ` · set aside ${group.retrying} · dead letters ${group.dead_letters ?? "?"} · last delivered ${group.cursor}`);
      element.querySelector("[data-do=pause]").hidden = group.paused;
      element.querySelector("[data-do=resume]").hidden = !group.paused;
      element.querySelector("input[type=hidden]").value = group.name;
      for (const button of element.querySelectorAll("header button")) button.dataset.group = group.name;
      keyed(element.querySelector(".workers"), group.consumers, (consumer) => consumer.name, fresh("worker-template"), worker(group));
    });
  }

  function pending(groups, lease) {
    write($("threshold"), span(lease));
    const entries = groups.flatMap((group) => group.pending_entries.map((entry) => ({ ...entry, group: group.name })));
    keyed($("pending"), entries, (entry) => `${entry.group} ${entry.id}`, () => row(["", "id", "id", "n", "n"]), (element, entry) => {
      element.dataset.entry = entry.id;
      cells(element, [entry.group, entry.consumer, entry.id, span(entry.idle_ms), entry.deliveries]);
    });
    const targets = groups.flatMap((group) => group.consumers.map((consumer) => ({ group: group.name, ...consumer })));
    keyed($("reap-target"), targets, (target) => `${target.group}\n${target.name}`, () => document.createElement("option"), (element, target) => {
      element.value = `${target.group}\n${target.name}`;
      write(element, `${target.group} / ${target.label}`);
    });
  }

  function stream(state) {
    const about = state.stream;
    write($("key"), about.key);
    write($("length"), about.length);
    write($("first"), about.first ?? "none");
    write($("last"), about.last ?? "none");
    write($("cap"), about.cap === 0 ? "none" : about.cap);
    keyed($("tail"), state.tail, (entry) => entry.id, () => row(["id", "", "", "n", ""]), (element, entry) => {
      const fields = entry.fields;
      cells(element, [entry.id, fields.type ?? "", fields.order_id ?? "", fields.amount ?? "", fields.customer ?? ""]);
    });
  }

  function processes(processes) {
    keyed($("processes"), processes, (process) => process.label, () => {
      const element = document.createElement("li");
      const [name, button] = [document.createElement("span"), document.createElement("button")];
      button.dataset.do = "kill";
      button.className = "danger";
      button.textContent = "kill −9";
      element.append(name, " ", button);
      return element;
    }, (element, process) => {
      element.dataset.process = process.label;
      write(element.firstChild, `${process.label} · ${process.alive ? `pid ${process.process}` : "dead"}`);
      element.querySelector("button").dataset.name = process.label;
    });
  }

  function draw(state) {
    figures(state.groups);
    groups(state.groups);
    pending(state.groups, state.stream.lease_ms);
    stream(state);
    processes(state.processes);
    const setting = state.levers;
    write($("levers-now"), `${setting.latency_ms} ms, ${setting.failure_percent} % fail, poison ${setting.repaired ? "is repaired" : "fails"}`);
    const lost = state.groups.reduce((sum, group) => sum + group.figures.lost, 0);
    $("status").dataset.state = lost === 0 ? "good" : "bad";
    write($("status"), `${state.published} published, lost = ${lost}`);
  }

  async function refresh() {
    clearTimeout(timer);
    if (asking) return;
    asking = true;
    try {
      const answer = await fetch("state");
      const state = await answer.json();
      if (!answer.ok) throw new Error(state.error);
      draw(state);
    } catch (error) {
      $("status").dataset.state = "bad";
      write($("status"), `cannot ask: ${error.message}`);
    } finally {
      asking = false;
      if (!document.hidden) timer = setTimeout(refresh, every);
    }
  }

  function show(lever, ok, told) {
    const result = $("result");
    const words = document.createElement("pre");
    result.dataset.lever = lever;
    result.dataset.ok = ok;
    words.className = ok ? "" : "error";
    words.textContent = ok ? JSON.stringify(told, null, 2) : told.error ?? String(told);
    result.replaceChildren(words);
    if (ok && told.trimmed?.length) {
      const advice = document.createElement("p");
      advice.textContent = "The payload of these was trimmed away before they were done. Dead letters tell of them; an archive keeps them.";
      result.append(advice);
    }
  }

  function table(entries) {
    const result = $("result");
    const list = document.createElement("table");
    for (const entry of entries) {
      const line = row(["id", ""]);
      const fields = { ...entry.fields };
      const type = fields.type ?? "";
      delete fields.type;
      cells(line, [entry.id, [type, ...Object.entries(fields).map(([name, value]) => `${name} ${value}`)].join(", ")]);
      list.append(line);
    }
    const words = document.createElement("p");
    words.textContent = `${entries.length} entries; no group was touched.`;
    result.dataset.lever = "replay";
    result.dataset.ok = true;
    result.replaceChildren(words, list);
  }

  async function pull(lever, fields) {
    try {
      const answer = await fetch(lever, { method: "POST", body: new URLSearchParams(fields) });
      const text = await answer.text();
      let told;
      try { told = JSON.parse(text); } catch { told = { error: text }; }
      show(lever, answer.ok, told);
    } catch (error) {
      show(lever, false, { error: error.message });
    }
    await refresh();
  }

  async function ask(form) {
    const answer = await fetch(`replay?${new URLSearchParams(new FormData(form))}`);
    const text = await answer.text();
    let told;
    try { told = JSON.parse(text); } catch { told = { error: text }; }
    if (answer.ok) table(told.entries);
    else show("replay", false, told);
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    event.preventDefault();
    if (form.dataset.ask) return void ask(form);
    if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
    const fields = Object.fromEntries(new FormData(form));
    if (form.id === "reap") {
      const [group, consumer] = fields.target.split("\n");
      return void pull("reap", { group, consumer });
    }
    if (form.dataset.lever === "add-worker") form.querySelector("[name=name]").value = "";
    pull(form.dataset.lever, fields);
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const { group, name } = button.dataset;
    const what = button.dataset.do;
    if (what === "crash") pull("crash", { group, name, count: 3 });
    else if (what === "remove") {
      if (confirm(`Remove ${name} from ${group}? What it has goes to the others.`)) pull("remove-worker", { group, name });
    } else if (what === "kill") pull("kill", { name });
    else if (what === "delete") {
      if (confirm(`Delete the group ${group}? What it has not done goes with it.`)) pull("delete-group", { group, confirm: "delete" });
    } else pull(what, { group });
  });

  $("refresh").addEventListener("click", refresh);
  document.addEventListener("visibilitychange", refresh);
  refresh();
})();
