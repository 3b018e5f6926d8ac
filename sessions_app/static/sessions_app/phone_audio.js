// The sound of one call in the browser: what is heard, and the microphone if there is one.

// The wire carries up to 8 kHz; what lies above would fold back (microphone) or mirror up (speaker).
const BAND_HZ = 7200;

export class Sound {
  /** `onLevel(side, 0..1)` with side "agent" or "you"; `onFrame(ArrayBuffer)` for each 640 bytes. */
  constructor(onLevel, onFrame) {
    this.onLevel = onLevel;
    this.onFrame = onFrame;
    this.muted = false;
    this.media = null;
    this.players = {};
    this.yours = { microphone: 0, spoken: 0 };
  }

  /** Must be called from a press: browsers play nothing without one. */
  async open(workletUrl) {
    this.context = new AudioContext({ latencyHint: "interactive" });
    await this.context.audioWorklet.addModule(workletUrl);
    this.players.agent = this.player((level) => this.onLevel("agent", level), 1);
    // What is spoken for you is heard too, but more softly: the conversation is the agent's.
    this.players.caller = this.player((level) => this.yourLevel("spoken", level), 0.4);
    await this.context.resume();
  }

  player(onLevel, loudness) {
    const node = new AudioWorkletNode(this.context, "phone-playback", { outputChannelCount: [1] });
    node.port.onmessage = ({ data }) => onLevel(data.level);
    node
      .connect(this.filter())
      .connect(new GainNode(this.context, { gain: loudness }))
      .connect(this.context.destination);
    return node;
  }

  /** Raises the browser's own error if there is none or it may not be used. */
  async openMicrophone() {
    const media = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
    this.media = media;
    if (this.context.state === "closed") {
      this.stopMicrophone(); // the call ended while the browser still asked
      return;
    }
    const capture = new AudioWorkletNode(this.context, "phone-capture", { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => {
      if (data.frame && !this.muted) this.onFrame(data.frame);
      if (data.level !== undefined) this.yourLevel("microphone", this.muted ? 0 : data.level);
    };
    this.context.createMediaStreamSource(media).connect(this.filter()).connect(capture);
  }

  /** `speaker` is "agent" or "caller"; `frame` is given away. */
  play(speaker, frame) {
    this.players[speaker]?.port.postMessage({ frame }, [frame]);
  }

  /** Silence now, and the microphone's light off. */
  async close() {
    this.onLevel("agent", 0);
    this.onLevel("you", 0);
    // What the worklets told before they stop may come after it.
    this.onLevel = this.onFrame = () => {};
    for (const player of Object.values(this.players)) player.port.postMessage({ clear: true });
    this.stopMicrophone();
    if (this.context && this.context.state !== "closed") await this.context.close();
  }

  stopMicrophone() {
    for (const track of this.media?.getTracks() ?? []) track.stop();
  }

  yourLevel(source, level) {
    this.yours[source] = level;
    this.onLevel("you", Math.max(this.yours.microphone, this.yours.spoken));
  }

  filter() {
    return new BiquadFilterNode(this.context, { type: "lowpass", frequency: BAND_HZ });
  }
}
