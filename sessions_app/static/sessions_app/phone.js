// The page "Call the agent": one press, one conversation. The socket carries sound as binary frames
// and everything else as JSON; what is said is shown as the service tells it.

import { Sound } from "./phone_audio.js";

const phone = document.getElementById("phone");
if (phone) start(phone);

const FRAME_BYTES = 640;
const HEARD_EVERY_FRAMES = 25;
const MOST_UNSENT_BYTES = 64000; // two seconds: what is later than that nobody wants to hear
const TICKET_MS = 10000;
const GOODBYE_MS = 3000; // how long the last words of the service are waited for

function start(phone) {
  const at = (id) => document.getElementById("phone-" + id);
  const turns = at("turns");
  const log = at("log");
  let followed = true;
  let call = null; // {socket, sound, frames, since, ticker, opened, silent, over}

  at("call").addEventListener("click", begin);
  at("hang-up").addEventListener("click", hangUp);
  at("mute").addEventListener("click", toggleMute);
  at("say-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (say(at("text").value)) at("text").value = "";
    at("text").focus();
  });
  for (const button of phone.querySelectorAll("[data-say]")) {
    button.addEventListener("click", () => say(button.dataset.say));
  }
  addEventListener("pagehide", () => call?.socket?.close(1000));

  // ------------------------------------------------------------------ the call's way

  async function begin() {
    if (call) return;
    const mine = (call = { socket: null, sound: null, frames: 0, since: 0, ticker: 0 });
    turns.replaceChildren();
    at("page").hidden = true;
    at("time").textContent = "";
    problem("");
    show("calling", "Calling…");
    inCall(true);
    mine.sound = new Sound(level, (frame) => sendFrame(mine, frame));
    const soundReady = mine.sound
      .open(phone.dataset.workletUrl)
      .catch(() => hint("This browser plays no sound; the conversation can be read."));
    let path;
    try {
      path = await ticket();
    } catch (error) {
      end(mine, "failed", "The call could not be made.", error.message);
      return;
    }
    if (mine.over) return;
    connect(mine, path);
    await soundReady;
    if (!mine.silent) await microphone(mine);
  }

  async function ticket() {
    const answer = await fetch(phone.dataset.ticketUrl, {
      method: "POST",
      credentials: "same-origin",
      redirect: "manual", // the login page
      headers: { "X-CSRFToken": phone.querySelector("[name=csrfmiddlewaretoken]").value },
      body: new URLSearchParams({ agent: at("agent").value }),
      signal: AbortSignal.timeout(TICKET_MS),
    }).catch(() => {
      throw new Error("The service does not answer.");
    });
    if (answer.type === "opaqueredirect" || answer.status === 403) {
      throw new Error("You are logged out. Reload the page.");
    }
    const content = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(content.error || "The service answered with " + answer.status + ".");
    return content.path;
  }

  function connect(mine, path) {
    const scheme = location.protocol === "https:" ? "wss://" : "ws://";
    const socket = (mine.socket = new WebSocket(scheme + location.host + path));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => (mine.opened = true);
    socket.onmessage = ({ data }) => {
      if (mine.over) return;
      if (typeof data === "string") told(mine, JSON.parse(data));
      else if (!mine.silent) hear(mine, data);
    };
    socket.onclose = () => {
      if (mine.silent) end(mine, "ended", "Ended: you hung up.");
      else if (mine.opened) end(mine, "failed", "The connection was lost.", "Nothing is heard any more. Try “Call again”.");
      else end(mine, "failed", "The call could not be made.", "The service refused the connection. Reload the page and try again.");
    };
  }

  async function microphone(mine) {
    try {
      await mine.sound.openMicrophone();
      hint("");
      if (!mine.silent) at("mute").disabled = false;
    } catch {
      hint("No microphone, or it may not be used here: press a sentence, or type your own. The agent hears it spoken.");
    }
  }

  function told(mine, message) {
    switch (message.type) {
      case "phone.placed":
        at("page").href = phone.dataset.pageUrl.replace("UUID", encodeURIComponent(message.uuid));
        at("page").hidden = false;
        break;
      case "phone.connected":
        if (mine.silent) break;
        mine.since = Date.now();
        show("connected", "Connected");
        tick(mine);
        mine.ticker = setInterval(() => tick(mine), 1000);
        break;
      case "phone.announced":
        line("announced", "Service", "", message.text, Infinity);
        stay();
        break;
      case "phone.problem":
        problem(message.text);
        break;
      case "phone.ended":
        end(mine, message.failed ? "failed" : "ended", "Ended: " + message.reason + ".");
        break;
      case "call.turn":
        turn(message.turn);
        break;
    }
  }

  function end(mine, phase, text, trouble = "") {
    if (mine.over) return;
    mine.over = true;
    call = null;
    silence(mine);
    mine.socket?.close(1000);
    for (const mark of turns.querySelectorAll("[data-unfinished]")) mark.remove();
    show(phase, text);
    if (trouble) problem(trouble);
    at("call").textContent = "Call again";
    inCall(false);
    at("call").focus();
  }

  function hangUp() {
    const mine = call;
    if (!mine || mine.silent) return;
    silence(mine);
    inCall(true, true);
    show("ended", "Hanging up…");
    const goodbye = () => end(mine, "ended", "Ended: you hung up.");
    if (send(mine, { type: "hang_up" })) setTimeout(goodbye, GOODBYE_MS);
    else goodbye();
  }

  /** Nothing is heard, or listened to, after the end. */
  function silence(mine) {
    if (mine.silent) return;
    mine.silent = true;
    clearInterval(mine.ticker);
    mine.sound?.close();
  }

  // ------------------------------------------------------------------ sound and words

  function hear(mine, data) {
    // The first byte says whose voice it is: 0 the agent's, 1 the caller's, spoken for you.
    const speaker = new Uint8Array(data, 0, 1)[0] === 1 ? "caller" : "agent";
    mine.sound.play(speaker, data.slice(1));
    mine.frames += 1;
    // The server counts what is on its way, so that a page that stands still costs it nothing.
    if (mine.frames % HEARD_EVERY_FRAMES === 0) send(mine, { type: "heard", frames: mine.frames });
  }

  function sendFrame(mine, frame) {
    const socket = mine.socket;
    if (mine.silent || socket?.readyState !== WebSocket.OPEN) return;
    if (frame.byteLength === FRAME_BYTES && socket.bufferedAmount < MOST_UNSENT_BYTES) socket.send(frame);
  }

  function say(text) {
    const words = text.trim();
    return Boolean(words) && call !== null && send(call, { type: "say", text: words });
  }

  function send(mine, message) {
    if (mine.socket?.readyState !== WebSocket.OPEN) return false;
    mine.socket.send(JSON.stringify(message));
    return true;
  }

  function toggleMute() {
    if (!call) return;
    call.sound.muted = !call.sound.muted;
    at("mute").setAttribute("aria-pressed", String(call.sound.muted));
    at("mute").textContent = call.sound.muted ? "Unmute microphone" : "Mute microphone";
  }

  // ------------------------------------------------------------------ what is shown

  function turn({ item_id, speaker, text, from_ms, to_ms, interrupted, final }) {
    const who = speaker === "agent" ? at("agent").selectedOptions[0].dataset.name : "You";
    const speaking = !final && to_ms === null;
    const words = text || (speaker === "agent" && interrupted ? "(not heard)" : "…");
    const item = line(speaker, who, clock(from_ms / 1000), words, from_ms, item_id);
    if (interrupted) item.append(element("p", "call-turn-mark", "Interrupted here by you"));
    else if (speaking && !call?.silent) {
      const mark = element("p", "call-turn-mark", "Speaking");
      mark.dataset.unfinished = "";
      item.append(mark);
    }
    stay();
  }

  /** One line of the conversation, kept in order of its time; the same `id` is the same line. */
  function line(speaker, who, when, text, order, id = "") {
    const head = element("div", "call-turn-head", "");
    head.append(element("strong", "", who), " ", element("span", "call-turn-at", when));
    followed = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    let item = id ? [...turns.children].find((other) => other.dataset.item === id) : null;
    if (!item) {
      item = element("li", "call-turn call-turn-" + speaker, "");
      item.dataset.item = id;
      item.dataset.order = String(order);
      const later = [...turns.children].find((other) => Number(other.dataset.order) > order);
      turns.insertBefore(item, later ?? null);
    }
    item.replaceChildren(head, element("p", "", text));
    return item;
  }

  /** Whoever read the end goes on reading the end. */
  function stay() {
    if (followed) log.scrollTop = log.scrollHeight;
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  }

  function inCall(yes, hangingUp = false) {
    const talking = yes && !hangingUp;
    at("call").disabled = at("agent").disabled = yes;
    at("hang-up").disabled = at("text").disabled = at("say").disabled = !talking;
    for (const button of phone.querySelectorAll("[data-say]")) button.disabled = !talking;
    at("mute").disabled = true; // until there is a microphone
    at("mute").setAttribute("aria-pressed", "false");
    at("mute").textContent = "Mute microphone";
  }

  function show(phase, text) {
    at("box").dataset.phase = phase;
    at("state").textContent = text;
  }

  function tick(mine) {
    at("time").textContent = clock((Date.now() - mine.since) / 1000);
  }

  function clock(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    return Math.floor(whole / 60) + ":" + String(whole % 60).padStart(2, "0");
  }

  function level(side, value) {
    at("level-" + side).value = value;
  }

  function problem(text) {
    at("problem").textContent = text;
  }

  function hint(text) {
    at("mic-hint").textContent = text;
  }
}
