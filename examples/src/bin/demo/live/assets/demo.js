// The demo page: requests the whole state every 1.5 seconds and updates existing elements in place, so that
// typed text, focus, caret and selection are kept. Data is only written as text, never as HTML.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const every = 1500;
  let timer = null;
  let loading = false;

  function write(element, text) {
    const words = String(text);
    if (element.textContent !== words) element.textContent = words;
  }

  // Keeps one child of `parent` for each item, identified by its key: creates it for a new item, removes it
  // with its item, and otherwise updates the same element.
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
        const figures = group.figures;
        cells(element, [group.name, figures.lost, figures.published, figures.done, figures.waiting, figures.dead, figures.duplicates]);
        element.dataset.group = group.name;
        for (const name of ["published", "done", "waiting", "dead", "duplicates", "lost"]) element.dataset[name] = figures[name];
        element.children[1].classList.toggle("some", figures.lost > 0);
      });
  }

  function badge(element, delivery) {
    element.className = `badge ${delivery.result}`;
    const mark = { done: "done", failed: "failed", dropped: "dropped" }[delivery.result];
    write(element, `${mark} ${delivery.event_type}`);
    element.title = `${delivery.entry_id}\norder_id ${delivery.order_id}\ncustomer ${delivery.customer}\namount ${delivery.amount}\ndelivery ${delivery.delivery_count}`;
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
      keyed(element.querySelector(".recent"), consumer.recent, (delivery) => `${delivery.entry_id} ${delivery.delivery_count} ${delivery.result}`,
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
        ` · retries ${group.retrying} · dead letters ${group.dead_letters ?? "?"} · last delivered ${group.cursor}`);
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
    const info = state.stream;
    write($("key"), info.key);
    write($("length"), info.length);
    write($("first"), info.first ?? "none");
    write($("last"), info.last ?? "none");
    write($("cap"), info.cap === 0 ? "none" : info.cap);
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
    const setting = state.settings;
    write($("settings-now"), `${setting.latency_ms} ms, ${setting.failure_percent} % fail, poison orders ${setting.repaired ? "succeed" : "fail"}`);
    const lost = state.groups.reduce((sum, group) => sum + group.figures.lost, 0);
    $("status").dataset.state = lost === 0 ? "good" : "bad";
    write($("status"), `${state.published} published, lost = ${lost}`);
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
    const result = $("result");
    const words = document.createElement("pre");
    result.dataset.action = action;
    result.dataset.ok = ok;
    words.className = ok ? "" : "error";
    words.textContent = ok ? JSON.stringify(answer, null, 2) : answer.error ?? String(answer);
    result.replaceChildren(words);
    if (ok && answer.trimmed?.length) {
      const advice = document.createElement("p");
      advice.textContent = "These entries were trimmed before they were processed. Each is stored as a dead letter.";
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
    words.textContent = `${entries.length} entries. Reading them changed no group.`;
    result.dataset.action = "replay";
    result.dataset.ok = true;
    result.replaceChildren(words, list);
  }

  async function send(action, fields) {
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

  async function replay(form) {
    const response = await fetch(`replay?${new URLSearchParams(new FormData(form))}`);
    const text = await response.text();
    let answer;
    try { answer = JSON.parse(text); } catch { answer = { error: text }; }
    if (response.ok) table(answer.entries);
    else show("replay", false, answer);
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    event.preventDefault();
    if (form.dataset.query) return void replay(form);
    if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
    const fields = Object.fromEntries(new FormData(form));
    if (form.id === "reap") {
      const [group, consumer] = fields.target.split("\n");
      return void send("reap", { group, consumer });
    }
    if (form.dataset.action === "add-worker") form.querySelector("[name=name]").value = "";
    send(form.dataset.action, fields);
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const { group, name } = button.dataset;
    const what = button.dataset.do;
    if (what === "crash") send("crash", { group, name, count: 3 });
    else if (what === "remove") {
      if (confirm(`Remove ${name} from ${group}? Its entries are released for other consumers.`)) send("remove-worker", { group, name });
    } else if (what === "kill") send("kill", { name });
    else if (what === "delete") {
      if (confirm(`Delete the group ${group}? Its unfinished jobs are lost.`)) send("delete-group", { group, confirm: "delete" });
    } else send(what, { group });
  });

  $("refresh").addEventListener("click", refresh);
  document.addEventListener("visibilitychange", refresh);
  refresh();
})();
