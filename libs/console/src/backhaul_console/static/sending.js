/* A form that sends a file says how far it is. Without this it does the same, and says nothing until it is done. */
"use strict";
(() => {
  let form = null;
  const part = (name) => form.querySelector(`[data-${name}]`);

  function show(name) {
    for (const one of ["sending", "recording", "broken"]) part(one).hidden = one !== name;
    form.querySelector("button").disabled = name === "sending" || name === "recording";
  }

  function answered(request) {
    // Whoever is signed out meanwhile is led to the form for that, which is no part of this page.
    const page = new DOMParser().parseFromString(request.responseText, "text/html");
    const main = page.getElementById("main");
    if (!main || new URL(request.responseURL).pathname !== new URL(form.action).pathname) {
      location.assign(request.responseURL);
      return;
    }
    document.title = page.title;
    document.getElementById("main").replaceWith(document.adoptNode(main));
    document.getElementById("main").focus();
    document.dispatchEvent(new Event("htmx:after:swap"));
    begin();
  }

  function begin() {
    form = document.querySelector("form[data-sends-file]");
    if (form) form.addEventListener("submit", send);
  }

  function send(event) {
    event.preventDefault();
    const request = new XMLHttpRequest();
    request.open("POST", event.target.action);
    request.upload.addEventListener("progress", (told) => {
      if (told.lengthComputable) part("sending").querySelector("progress").value = told.loaded / told.total;
    });
    request.upload.addEventListener("load", () => show("recording"));
    request.addEventListener("load", () => answered(request));
    request.addEventListener("error", () => show("broken"));
    show("sending");
    request.send(new FormData(event.target));
  }

  begin();
})();
