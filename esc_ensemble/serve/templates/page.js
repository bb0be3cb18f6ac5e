"use strict";
/* Takes a recording, shows it, asks the service what it is. Texts go in as text, never as markup. */
(() => {
  const about = JSON.parse(document.getElementById("about").textContent);
  const { limits } = about;
  const { make, clock } = Player;
  const byId = (id) => document.getElementById(id);
  const readable = (name) => name.replaceAll("_", " ");
  const percent = (share) => (share >= 0.9995 ? "100 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
  const N_TOP = 5;
  const SURE = 0.5;
  const MOST_LANES = 8;
  const MOST_COLUMNS = 1200;
  const LONG = 1.2;  // clips' lengths from which on a recording is heard in windows
  const RECORD_SECONDS = 30;
  const TRIES = 5;  // where the service is full

  // ---- what stands still --------------------------------------------------------------------------------------------
  byId("lead").textContent = `${about.model} tells ${about.classes.length} kinds of sound apart, in clips of ` +
    `${+about.clip_seconds.toFixed(2)} s; of longer recordings it hears one stretch after the other.`;
  const longest = limits.seconds >= 120 ? `${+(limits.seconds / 60).toFixed(1)} minutes` : `${+limits.seconds.toFixed(1)} s`;
  byId("hint").textContent = `WAV, FLAC, Ogg, Opus, MP3 … up to ${+limits.megabytes.toFixed(2)} MB and ${longest}. Nothing that you send is kept.`;
  byId("classes").append(...about.classes.map((name) => make("li", "", readable(name))));
  byId("footer").textContent = `esc_ensemble ${about.version}`;
  const command = `curl --data-binary @clip.wav ${new URL("predict", location.href).href}`;
  byId("command").textContent = command;
  if (!navigator.clipboard) byId("copy").hidden = true;  // as on pages without TLS
  byId("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(command).then(() => { byId("copy").textContent = "Copied"; }, () => { byId("copy").textContent = "No"; });
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 1500);
  });

  const root = document.documentElement;
  try { if (localStorage.getItem("esc-ens-theme")) root.dataset.theme = localStorage.getItem("esc-ens-theme"); } catch (error) { /* the machine's theme, then */ }
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("esc-ens-theme", root.dataset.theme); } catch (error) { /* it holds until the page is closed */ }
  });

  // ---- one recording: heard, seen, answered -------------------------------------------------------------------------
  let turn = new AbortController();  // of the recording that is on the page; a new one aborts it

  async function take(file) {
    turn.abort();
    const { signal } = turn = new AbortController();
    clear(file);
    const tooMuch = file.size === 0 ? "The file is empty." : file.size > limits.megabytes * 1e6 && `The file has ${(file.size / 1e6).toFixed(1)} MB; up to ${+limits.megabytes.toFixed(2)} MB are taken.`;
    if (tooMuch) { fail(tooMuch); byId("result").hidden = true; return; }
    const decoded = await file.arrayBuffer().then(Sound.decode).catch(() => null);
    if (signal.aborted) return;
    const wav = decoded && Sound.toWav(decoded.samples);
    Player.load(wav, decoded ? decoded.seconds : 0);
    byId("play").disabled = !decoded;
    byId("length").textContent = decoded ? clock(decoded.seconds) : "";
    const drawing = decoded ? draw(decoded, signal) : blind("This browser cannot decode the file, so it is neither shown nor played here.");
    await Promise.all([drawing, answer(file, decoded, wav, signal)]);
  }
  function clear(file) {
    Player.load(null, 0);
    document.body.classList.add("used");
    byId("error").hidden = true;
    byId("result").hidden = false;
    byId("title").textContent = file.name;
    byId("length").textContent = "";
    byId("play").disabled = true;
    byId("facts").textContent = byId("heard-now").textContent = "";
    byId("guesses").replaceChildren();
    byId("lanes").replaceChildren();
    byId("lanes").hidden = byId("blind").hidden = true;
    Sound.paint(byId("spectrogram"), new Float32Array(1), 1);
    for (const old of byId("picture").querySelectorAll(".hz")) old.remove();
    byId("spectrogram").setAttribute("aria-label", `Spectrogram of ${file.name}`);
    say("listening …", true);
  }
  function say(text, busy = false, small = "") {
    const verdict = byId("verdict");
    verdict.classList.toggle("busy", busy);
    verdict.replaceChildren(text);
    if (small) verdict.append(make("small", "", small));
  }
  function fail(message) {
    byId("error").textContent = message;
    byId("error").hidden = false;
    say("no answer");
  }
  function blind(message) {
    byId("blind").textContent = message;
    byId("blind").hidden = false;
  }
  async function draw({ samples }, signal) {
    const columns = Math.max(1, Math.min(MOST_COLUMNS, Math.ceil(samples.length / 64)));
    const picture = await Sound.spectrogram(samples, columns, () => !signal.aborted);
    if (!picture || signal.aborted) return;
    Sound.paint(byId("spectrogram"), picture.levels, picture.columns);
    Player.drawFrequencies(byId("picture"), picture.top);
  }

  async function answer(file, decoded, wav, signal) {
    const query = new URLSearchParams({ top: N_TOP, ...windowsFor(decoded ? decoded.seconds : 0) });
    const started = performance.now();
    try {
      let response = await post(file, query, signal);
      // Browsers decode some formats that the service does not, such as AAC.
      if (response.status === 415 && wav && wav.size <= limits.megabytes * 1e6) response = await post(wav, query, signal);
      const found = await response.json();
      if (!response.ok) {
        fail(found.error);
        byId("result").hidden = !decoded;
        return;
      }
      tell(found, performance.now() - started);
    } catch (error) {
      if (!signal.aborted) fail(error instanceof SyntaxError ? "The answer cannot be read." : "The service does not answer. Is it running, and is the file still there?");
    }
  }
  /** Asks for windows of what is longer than a clip, with as much overlap as the service allows. */
  function windowsFor(seconds) {
    if (seconds <= LONG * about.clip_seconds) return {};
    const overlap = [0.5, 0.25, 0].find((each) => seconds / (about.clip_seconds * (1 - each)) + 1 <= limits.windows);
    return overlap === undefined ? {} : { windows: true, overlap };
  }
  async function post(body, query, signal) {
    for (let attempt = 1; ; attempt++) {
      const response = await fetch(`predict?${query}`, { method: "POST", body, signal, headers: { "Content-Type": "application/octet-stream" } });
      if (response.status !== 503 || attempt === TRIES) return response;
      say("waiting for a turn …", true);
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds * attempt));
      signal.throwIfAborted();
    }
  }

  function tell(found, milliseconds) {
    const [best] = found.top, windows = found.windows || [];
    const leaders = leadersOf(windows);
    if (best.probability < SURE && leaders.length > 1) {
      const most = [...leaders].sort((a, b) => found.probabilities[b] - found.probabilities[a]).slice(0, 3);
      say(most.map(readable).join(", "), false, leaders.length > 3 ? `and ${leaders.length - 3} more` : "one after the other");
    } else {
      say(`${best.probability < SURE ? "perhaps " : ""}${readable(best.class)}`, false, percent(best.probability));
    }
    byId("guesses").append(...found.top.map(({ class: name, probability }) => {
      const bar = make("i", "", "", { width: "0" });
      const track = make("span", "track");
      track.setAttribute("aria-hidden", "true");
      track.append(bar);
      const row = make("li", "guess");
      row.append(make("span", "", readable(name)), track, make("span", "", percent(probability)));
      requestAnimationFrame(() => { bar.style.width = `${100 * probability}%`; });
      return row;
    }));
    const how = windows.length > 1 ? `mean of ${windows.length} windows` : found.seconds > about.clip_seconds + 0.05 ? `its middle ${+about.clip_seconds.toFixed(2)} s` : "heard whole";
    byId("facts").textContent = `${clock(found.seconds)} of sound, ${how}; answered in ${milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`}.`;
    if (windows.length > 1) drawLanes(leaders.length ? leaders.slice(0, MOST_LANES) : [best.class], windows, found.seconds);
  }
  /** The classes that windows are sure of, in the order in which they are first heard. */
  function leadersOf(windows) {
    const sure = windows.map(({ top }) => top[0]).filter((first) => first && first.probability >= SURE);
    return [...new Set(sure.map((first) => first.class))];
  }
  function drawLanes(names, windows, seconds) {
    const middles = windows.map(({ start, end }) => (start + end) / 2);
    const nearest = (time) => middles.reduce((best, middle, n) => (Math.abs(middle - time) < Math.abs(middles[best] - time) ? n : best), 0);
    const columns = Math.min(MOST_COLUMNS, 4 * windows.length);
    const places = Array.from({ length: columns }, (_, column) => nearest(((column + 0.5) / columns) * seconds));
    byId("lanes").replaceChildren(...names.map((name) => {
      const lane = make("div", "lane"), canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `How likely ${readable(name)} is over time`);
      Sound.paint(canvas, Float32Array.from(places, (place) => 0.85 * windows[place].probabilities[name]), columns);
      lane.append(canvas, make("span", "", readable(name)));
      return lane;
    }));
    byId("lanes").hidden = false;
    const follow = (time) => {
      const [best] = windows[nearest(time)].top;
      byId("heard-now").textContent = best ? `here: ${readable(best.class)} ${percent(best.probability)}` : "";
    };
    Player.onMove(follow);
    follow(Player.time);
  }

  // ---- how recordings come in ---------------------------------------------------------------------------------------
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";  // the same file may be chosen again
    if (file) take(file);
  });
  const carriesFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  let depth = 0;  // of elements that the mouse entered with a file
  window.addEventListener("dragenter", (event) => { if (carriesFiles(event)) { depth++; byId("veil").hidden = false; } });
  window.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); byId("veil").hidden = depth === 0; });
  window.addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  window.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    byId("veil").hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });

  const button = byId("record"), label = button.querySelector("span");
  let recorder = null;
  button.hidden = !(navigator.mediaDevices && window.MediaRecorder);
  button.addEventListener("click", async () => {
    if (recorder) { recorder.stop(); return; }
    const wanted = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };  // the sounds are the noise
    const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted }).catch(() => null);
    if (!stream) { fail("The microphone may not be used, or there is none."); return; }
    const parts = [], began = performance.now();
    recorder = new MediaRecorder(stream);
    const tick = setInterval(() => {
      const seconds = (performance.now() - began) / 1000;
      label.textContent = `Stop (${clock(seconds)})`;
      if (seconds >= RECORD_SECONDS) recorder.stop();
    }, 100);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", async () => {
      clearInterval(tick);
      recorder = null;
      button.setAttribute("aria-pressed", "false");
      label.textContent = "Record";
      for (const track of stream.getTracks()) track.stop();
      const decoded = await new Blob(parts).arrayBuffer().then(Sound.decode).catch(() => null);
      if (decoded && decoded.samples.length) take(new File([Sound.toWav(decoded.samples)], "recording.wav", { type: "audio/wav" }));
      else fail("Nothing was recorded.");
    });
    recorder.start();
    button.setAttribute("aria-pressed", "true");
    label.textContent = "Stop";
  });
})();
