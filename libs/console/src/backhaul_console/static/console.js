/* What reading does without: times as the visitor wants them, and what follows by itself. */
"use strict";
(() => {
  const RELATIVE = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const words = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });
  const choice = document.getElementById("clock");
  let shown = "utc";

  function told(at, exact) {
    if (shown === "local") return at.toLocaleString();
    if (shown === "relative") {
      const ago = (at - Date.now()) / 1000;
      const [unit, size] = RELATIVE.find(([, seconds]) => Math.abs(ago) >= seconds) || RELATIVE.at(-1);
      return words.format(Math.round(ago / size), unit);
    }
    return exact.slice(0, 10) + " " + exact.slice(11, 19) + "\u00a0UTC";
  }

  function write(within) {
    for (const time of within.querySelectorAll("time[datetime]")) {
      const exact = time.getAttribute("datetime");
      const text = told(new Date(exact), exact);
      if (time.textContent !== text) time.textContent = text;
      time.title = exact;
    }
    for (const title of within.querySelectorAll("title[data-at]")) {
      const exact = title.dataset.at;
      title.textContent = told(new Date(exact), exact) + ": " + title.dataset.count;
    }
  }

  if (choice) {
    try { shown = localStorage.getItem("clock") || "utc"; } catch { /* A browser that keeps nothing shows UTC. */ }
    choice.value = shown;
    choice.hidden = false;
    choice.addEventListener("change", () => {
      shown = choice.value;
      try { localStorage.setItem("clock", shown); } catch { /* As above. */ }
      write(document);
      document.dispatchEvent(new Event("clock"));
    });
    setInterval(() => { if (shown === "relative") write(document); }, 10000);
  }
  write(document);
  document.addEventListener("htmx:after:swap", () => write(document));

  // What was just done is said once: a page that is loaded again, or kept as a bookmark, does not say it anew.
  const here = new URL(location);
  if (here.searchParams.has("said")) {
    here.searchParams.delete("said");
    history.replaceState(history.state, "", here);
  }

  // What a page asks for by itself and does not get leaves it as it is: that is said beside it, until an answer comes.
  function standing(event, fresh) {
    const request = event.detail?.ctx;
    const place = request?.select && document.querySelector(request.select);
    if (!place) return;
    const told = place.previousElementSibling?.matches(".stale") ? place.previousElementSibling : null;
    if (fresh) told?.remove();
    else if (!told) {
      const line = document.createElement("p");
      line.className = "stale warning";
      line.setAttribute("role", "status");
      place.before(line);
      line.textContent = document.getElementById("main").dataset.stale;
    }
  }

  document.addEventListener("htmx:response:error", (event) => standing(event, false));
  document.addEventListener("htmx:error", (event) => standing(event, false));
  document.addEventListener("htmx:after:swap", (event) => {
    const answer = event.detail?.ctx?.response;
    if (answer && answer.status < 400) standing(event, true);
  });
})();
