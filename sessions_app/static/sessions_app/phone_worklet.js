// Both ends of the sound, on the browser's audio thread. The wire is 16 kHz, signed 16 bit, mono, in
// frames of 20 ms (320 samples, 640 bytes); the browser's own rate is whatever its device wants.

const WIRE_HZ = 16000;
const FRAME = 320;
const LEVEL_EVERY_S = 0.1;

/** Loudness as people hear it: 0 at -60 dB and below, 1 at full scale. */
function loudness(rms) {
  return rms > 0.001 ? 1 + Math.log10(rms) / 3 : 0;
}

class LevelMeter {
  constructor(port) {
    this.port = port;
    this.sum = 0;
    this.count = 0;
  }

  add(samples) {
    for (const sample of samples) this.sum += sample * sample;
    this.count += samples.length;
    if (this.count >= LEVEL_EVERY_S * sampleRate) {
      this.port.postMessage({ level: loudness(Math.sqrt(this.sum / this.count)) });
      this.sum = this.count = 0;
    }
  }
}

/** Microphone to frames. What lies above the wire's band is filtered off before it comes here. */
class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.step = sampleRate / WIRE_HZ;
    this.at = 0; // where the next wire sample lies, in samples of this block
    this.last = 0; // the last sample of the block before
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.meter = new LevelMeter(this.port);
  }

  process(inputs) {
    const input = inputs[0][0];
    if (!input) return true;
    this.meter.add(input);
    while (this.at < input.length) {
      const index = Math.floor(this.at);
      const before = index === 0 ? this.last : input[index - 1];
      this.put(before + (input[index] - before) * (this.at - index));
      this.at += this.step;
    }
    this.at -= input.length;
    this.last = input[input.length - 1];
    return true;
  }

  put(sample) {
    this.frame[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
    if (this.filled < FRAME) return;
    this.port.postMessage({ frame: this.frame.buffer }, [this.frame.buffer]);
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
  }
}

/** Frames to the loudspeaker: a ring that begins to play when START is there, and waits again when it
 *  runs dry. Frames come in real time, so what piles up beyond MOST is delay and is left out. */
class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.START = 0.12 * WIRE_HZ;
    this.MOST = 1.0 * WIRE_HZ;
    this.ring = new Float32Array(2 * WIRE_HZ);
    this.step = WIRE_HZ / sampleRate;
    this.meter = new LevelMeter(this.port);
    this.clear();
    this.port.onmessage = ({ data }) => {
      if (data.clear) this.clear();
      else this.push(new Int16Array(data.frame));
    };
  }

  clear() {
    this.written = 0; // in wire samples, ever growing; the ring holds written - read of them
    this.read = 0;
    this.playing = false;
  }

  push(samples) {
    for (const sample of samples) this.ring[this.written++ % this.ring.length] = sample / 32768;
    if (this.written - this.read > this.MOST) this.read = this.written - this.START;
  }

  process(_inputs, outputs) {
    const output = outputs[0][0];
    for (let index = 0; index < output.length; index++) {
      const left = this.written - this.read;
      if (!this.playing && left >= this.START) this.playing = true;
      if (this.playing && left < 2) this.playing = false;
      output[index] = this.playing ? this.next() : 0;
    }
    this.meter.add(output);
    for (const other of outputs[0].slice(1)) other.set(output);
    return true;
  }

  next() {
    const whole = Math.floor(this.read);
    const first = this.ring[whole % this.ring.length];
    const second = this.ring[(whole + 1) % this.ring.length];
    const value = first + (second - first) * (this.read - whole);
    this.read += this.step;
    return value;
  }
}

registerProcessor("phone-capture", Capture);
registerProcessor("phone-playback", Playback);
