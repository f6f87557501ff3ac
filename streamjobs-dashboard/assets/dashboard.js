// Live updates: requests the address of the page as an event stream and replaces the part that changes.
// Typed text, focus, selection and opened details are kept.
"use strict";

(() => {
  const live = document.getElementById("live");
  const liveness = document.getElementById("liveness");
  const pause = document.getElementById("pause");
  const changes = document.getElementById("changes");
  let source = null;
  let timer = null;
  document.documentElement.classList.add("script");

  function show(word, state) {
    liveness.textContent = word;
    liveness.dataset.state = state;
  }

  const inputs = new Set(["INPUT", "SELECT", "TEXTAREA"]);
  const morphing = {
    morphStyle: "innerHTML",
    restoreFocus: true,
    callbacks: {
      // Never change what a user is filling in.
      beforeNodeMorphed: (old) =>
        !(old.nodeType === 1 && (inputs.has(old.tagName) || "keep" in old.dataset)),
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
    },
  };

  function draw(html) {
    const part = document.createElement("template");
    part.innerHTML = html;
    const before = problems();
    Idiomorph.morph(live, part.content.childNodes, morphing);
    times();
    const after = problems();
    if (before !== after) tell(after);
  }

  // The groups with problems and which they are, without figures, which change with each update.
  function problems() {
    const all = [...live.querySelectorAll("section.banner [data-problem]")];
    return all.map((item) => `${item.dataset.problem} ${item.querySelector("a")?.textContent ?? ""}`).join(", ");
  }

  function tell(found) {
    changes.textContent = found === "" ? "No problems." : `Problems: ${found.replaceAll("_", " ")}`;
  }

  // Exact times are shown in the zone of the reader. Those of a page that is not updated go on by the
  // clock of the server, because that of the browser may be wrong. `data-ahead` says by how many seconds the
  // clock of which the time is was ahead of that.
  const ahead = Number(document.body.dataset.now) - Date.now();
  const zoned = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

  function times() {
    for (const time of document.querySelectorAll("time[data-relative]")) {
      const at = Date.parse(time.dateTime);
      time.title = zoned.format(at);
      if (!source) time.textContent = relative(at - Date.now() - ahead - Number(time.dataset.ahead ?? 0) * 1000);
    }
  }

  function relative(millis) {
    const seconds = Math.floor(Math.abs(millis) / 1000);
    if (seconds === 0) return "now";
    const units = [[172800, 86400, "d"], [7200, 3600, "h"], [120, 60, "min"], [0, 1, "s"]];
    const [, unit, name] = units.find(([least]) => seconds >= least);
    const span = `${Math.floor(seconds / unit)} ${name}`;
    return millis > 0 ? `in ${span}` : `${span} ago`;
  }

  function follow() {
    stop();
    source = new EventSource(location.href);
    source.addEventListener("page", (event) => {
      show("live", "live");
      live.classList.remove("stale");
      document.getElementById("stale")?.remove();
      draw(event.data);
    });
    source.addEventListener("same", () => show("live", "live"));
    source.addEventListener("fault", (event) => {
      show("error", "fault");
      // A page that is nothing but an error shows this one in its place.
      const whole = live.querySelector("[data-error]");
      if (whole) {
        const part = document.createElement("template");
        part.innerHTML = event.data;
        const heading = part.content.querySelector("h2");
        live.querySelector("h1").textContent = heading.textContent;
        heading.remove();
        const text = part.content.querySelector(".fault").innerHTML;
        if (whole.innerHTML !== text) whole.innerHTML = text;
        return;
      }
      // Keep the last values, marked as stale, below the error.
      live.classList.add("stale");
      let box = document.getElementById("stale");
      if (!box) {
        box = document.createElement("div");
        box.id = "stale";
        live.before(box);
      }
      // The same error again is not told again.
      if (box.dataset.text !== event.data) box.innerHTML = event.data;
      box.dataset.text = event.data;
    });
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) {
        show("disconnected", "fault");
        timer = setTimeout(follow, 10000);
      } else {
        timer = setTimeout(() => show("disconnected", "fault"), 5000);
      }
    };
    source.onopen = () => clearTimeout(timer);
  }

  function stop() {
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  }

  function paused() {
    return sessionStorage.getItem("streamjobs-paused") === "1";
  }

  function apply() {
    pause.hidden = false;
    pause.textContent = paused() ? "Resume updates" : "Pause updates";
    if (paused() || document.hidden) {
      stop();
      show(paused() ? "updates paused" : "in background", "paused");
    } else if (!source) {
      follow();
    }
  }

  function toggle() {
    sessionStorage.setItem("streamjobs-paused", paused() ? "0" : "1");
    apply();
  }

  pause.addEventListener("click", toggle);
  document.addEventListener("visibilitychange", apply);
  addEventListener("pagehide", stop);

  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });

  document.addEventListener("change", (event) => {
    if (!("all" in event.target.dataset)) return;
    const boxes = live.querySelectorAll(`input[name="${event.target.dataset.all}"]`);
    for (const box of boxes) box.checked = event.target.checked;
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const link = [...document.querySelectorAll("nav a[data-key]")].find(
      (link) => link.dataset.key === event.key,
    );
    if (link) link.click();
    else if (event.key === "p") toggle();
    else if (event.key === "/") {
      const first = document.querySelector("main form[data-keep] input:not([type=hidden])");
      if (first) {
        event.preventDefault();
        first.focus();
      }
    }
  });

  times();
  setInterval(times, 10000);
  if (document.querySelector("[data-still]")) show("static", "paused");
  else apply();
})();
