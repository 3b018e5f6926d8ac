// Keeps the page of a call true while the call goes on: asks for the parts of the page, made by the
// same template, and puts in what has changed. Without this script the page is complete, only still.

const bar = document.getElementById("call-live");
if (bar) follow(bar);

function follow(bar) {
  const fresh = document.getElementById("call-fresh");
  const pause = document.getElementById("call-pause");
  const REQUEST_MS = 8000;
  let interval = Number(document.getElementById("call-parts").dataset.pollMs);
  let failures = 0;
  let lastSync = new Date();
  let paused = false;
  let timer = 0;

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on updating" : "Pause updates";
    if (paused) say("Paused. The page shows the call as of " + lastSync.toLocaleTimeString() + ".");
    else ask();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !paused && interval) ask();
  });
  plan(interval);

  function plan(ms) {
    clearTimeout(timer);
    if (ms && !paused) timer = setTimeout(ask, ms);
  }

  async function ask() {
    clearTimeout(timer);
    if (document.hidden) return; // asked again as soon as somebody looks
    try {
      const answer = await fetch(bar.dataset.url, {
        credentials: "same-origin",
        redirect: "manual", // the login page is not a part of a call
        signal: AbortSignal.timeout(REQUEST_MS),
      });
      if (answer.type === "opaqueredirect" || answer.status === 403) {
        stale("You are logged out, or may not see this call any more. Reload the page.");
        return;
      }
      if (!answer.ok) throw new Error("status " + answer.status);
      patch(await answer.text());
    } catch (error) {
      failures += 1;
      stale("Not updated since " + lastSync.toLocaleTimeString() + ". Trying again.");
      plan(Math.min(interval * 2 ** failures, 30000));
    }
  }

  function patch(html) {
    if (paused) return;
    const parts = new DOMParser().parseFromString(html, "text/html").getElementById("call-parts");
    if (!parts) throw new Error("no parts in the answer");
    for (const part of parts.querySelectorAll("[id]")) {
      const shown = document.getElementById(part.id);
      if (part.id === "call-turns") patchTurns(shown, part);
      else if (shown && !part.closest("#call-turns") && shown.innerHTML !== part.innerHTML) {
        shown.innerHTML = part.innerHTML;
      }
    }
    failures = 0;
    lastSync = new Date();
    bar.classList.remove("call-stale");
    interval = Number(parts.dataset.pollMs);
    if (!document.getElementById("call-state").querySelector(".call-state-ended")) {
      say("Live: this page follows the call.");
    } else {
      for (const part of document.querySelectorAll(".call-only-live")) part.remove();
      say(interval ? "The call has ended. The summary is being made." : "The call has ended.");
      if (!interval) pause.hidden = true;
    }
    plan(interval);
  }

  // Line by line: a reader of the log hears only what is new, and a selection stays.
  function patchTurns(shown, wanted) {
    const log = shown.parentElement;
    const followed = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    const keep = new Set();
    let before = null;
    for (const line of wanted.children) {
      keep.add(line.id);
      const old = document.getElementById(line.id);
      if (!old) shown.insertBefore(line.cloneNode(true), before ? before.nextSibling : shown.firstChild);
      else if (old.innerHTML !== line.innerHTML) old.innerHTML = line.innerHTML;
      before = document.getElementById(line.id);
    }
    for (const line of [...shown.children]) if (!keep.has(line.id)) line.remove();
    if (followed) log.scrollTop = log.scrollHeight;
  }

  function stale(text) {
    bar.classList.add("call-stale");
    say(text);
  }

  function say(text) {
    if (fresh.textContent !== text) fresh.textContent = text;
  }
}
