/* The live tail: puts the rows of the stream on top, keeps what comes while it is paused, and says how it stands. */
"use strict";
(() => {
  const SHOWN = 300, HELD = 300, TOGETHER_MS = 50;
  const tail = document.getElementById("tail"), rows = document.getElementById("rows");
  const pause = document.getElementById("pause"), standing = document.getElementById("standing");
  const words = tail.dataset;
  let paused = false, waiting = [], came = 0, due = 0, standsAs = "";

  function say(text) {
    standsAs = text;
    standing.textContent = paused ? words.paused : text;
  }

  function label() {
    pause.textContent = paused ? words.resume + (came ? " (" + words.waiting.replace("{}", came) + ")" : "") : words.pause;
  }

  // Rows were made by the server, which escapes each value. Many that come at once are put in at once.
  function show() {
    due = 0;
    if (paused || !waiting.length) return;
    const left = came - waiting.length;
    rows.insertAdjacentHTML("afterbegin", waiting.reverse().join(""));
    for (let at = 0; at < waiting.length && at < rows.rows.length; at++) rows.rows[at].classList.add("fresh");
    while (rows.rows.length > SHOWN) rows.deleteRow(-1);
    if (left > 0) document.getElementById("missed").textContent = words.left.replace("{}", left);
    waiting = [];
    came = 0;
    label();
    document.dispatchEvent(new CustomEvent("htmx:after:swap"));
  }

  tail.addEventListener("htmx:sse:before:message", (event) => {
    const message = event.detail.message;
    if (message.event) return;
    event.detail.cancelled = true;
    waiting.push(message.data);
    came += 1;
    if (waiting.length > HELD) waiting.shift();
    if (paused) label();
    else if (!due) due = setTimeout(show, TOGETHER_MS);
  });
  tail.addEventListener("begun", () => say(words.begun));
  tail.addEventListener("away", (event) => say(event.detail.data));
  tail.addEventListener("missed", (event) => { document.getElementById("missed").textContent = event.detail.data; });
  tail.addEventListener("ended", (event) => {
    say(event.detail.data);
    standing.className = "warning";
  });
  tail.addEventListener("htmx:sse:before:connection", (event) => {
    // A session that has ended does not come back by itself.
    if (event.detail.connection.status === 401) event.detail.connection.cancelled = true;
  });
  tail.addEventListener("htmx:sse:error", (event) => {
    const signedOut = event.detail.status === 401;
    if (signedOut) event.detail.connection.status = 401;
    say(signedOut ? words.gone : words.broken);
  });
  pause.addEventListener("click", () => {
    paused = !paused;
    label();
    say(standsAs);
    show();
  });
  tail.hidden = false;
})();
