// Follows the page it stands on: the same address, asked for as an event stream, tells the changing
// part again and again. What somebody types, has in focus, has selected or opened stays as it is.
"use strict";

(() => {
  const live = document.getElementById("live");
  const liveness = document.getElementById("liveness");
  const pause = document.getElementById("pause");
  let source = null;
  let again = null;

  function say(word, state) {
    liveness.textContent = word;
    liveness.dataset.state = state;
  }

  const kept = new Set(["INPUT", "SELECT", "TEXTAREA"]);
  const morphing = {
    morphStyle: "innerHTML",
    restoreFocus: true,
    callbacks: {
      // A form belongs to whoever fills it in.
      beforeNodeMorphed: (old) =>
        !(old.nodeType === 1 && (kept.has(old.tagName) || "keep" in old.dataset)),
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
    },
  };

  function draw(html) {
    const part = document.createElement("template");
    part.innerHTML = html;
    Idiomorph.morph(live, part.content.childNodes, morphing);
  }

  function follow() {
    stop();
    source = new EventSource(location.href);
    source.addEventListener("page", (event) => {
      say("live", "live");
      live.classList.remove("stale");
      document.getElementById("stale")?.remove();
      draw(event.data);
    });
    source.addEventListener("same", () => say("live", "live"));
    source.addEventListener("fault", (event) => {
      // What was seen last stays, marked as old, below what is wrong.
      say("fault", "fault");
      live.classList.add("stale");
      let box = document.getElementById("stale");
      if (!box) {
        box = document.createElement("div");
        box.id = "stale";
        live.before(box);
      }
      box.innerHTML = event.data;
    });
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) {
        say("not connected", "fault");
        again = setTimeout(follow, 10000);
      } else {
        again = setTimeout(() => say("not connected", "fault"), 5000);
      }
    };
    source.onopen = () => clearTimeout(again);
  }

  function stop() {
    clearTimeout(again);
    if (source) source.close();
    source = null;
  }

  function paused() {
    return sessionStorage.getItem("streamjobs-paused") === "1";
  }

  function apply() {
    pause.hidden = false;
    pause.textContent = paused() ? "Resume" : "Pause";
    pause.setAttribute("aria-pressed", String(paused()));
    if (paused() || document.hidden) {
      stop();
      say(paused() ? "paused" : "still", "paused");
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

  if (document.querySelector("[data-still]")) say("still", "paused");
  else apply();
})();
