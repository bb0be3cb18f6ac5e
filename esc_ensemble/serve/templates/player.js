"use strict";
/* A picture of sound with a playhead: what plays is followed, and clicks, drags and keys move it. */
const Player = (() => {
  const TICKS_HZ = [125, 250, 500, 1000, 2000, 4000, 8000, 16000];
  const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120];  // seconds between two marks
  const byId = (id) => document.getElementById(id);
  const screen = byId("screen"), head = byId("playhead"), button = byId("play"), now = byId("now"), axis = byId("axis");
  const audio = new Audio();
  let seconds = 0, url = "", follower = () => {};
  let wanted = null;  // where to go once the last seek is done: browsers stumble over seeks upon seeks

  function make(tag, className, text = "", style = {}) {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    Object.assign(element.style, style);
    return element;
  }
  const clock = (exact) => {
    const time = Math.round(10 * exact) / 10;  // first, or 59.97 s would be 60.0 of the minute before
    const whole = Math.floor(time / 60);
    return whole ? `${whole}:${(time % 60).toFixed(1).padStart(4, "0")}` : `${time.toFixed(1)} s`;
  };
  function show(time) {
    head.style.left = `${seconds ? (100 * Math.min(time, seconds)) / seconds : 0}%`;
    now.textContent = clock(time);
    screen.setAttribute("aria-valuenow", time.toFixed(2));
    screen.setAttribute("aria-valuetext", `${clock(time)} of ${clock(seconds)}`);
    follower(time);
  }
  function follow() {
    show(where());
    if (!audio.paused) requestAnimationFrame(follow);
  }
  const where = () => (wanted === null ? audio.currentTime : wanted);
  function seek(time) {
    if (!url) return;
    wanted = Math.min(seconds, Math.max(0, time));
    show(wanted);
    if (!audio.seeking) go();
  }
  function go() {
    audio.currentTime = wanted;
    wanted = null;
  }
  function toggle() {
    if (!url) return;
    if (!audio.paused) { audio.pause(); return; }
    if (where() >= seconds - 0.02) seek(0);
    audio.play().catch((error) => { now.textContent = `cannot be played: ${error.message}`; });
  }
  function pressed(on) {
    button.setAttribute("aria-pressed", String(on));
    button.setAttribute("aria-label", on ? "Pause" : "Play");
  }
  audio.addEventListener("play", () => { pressed(true); requestAnimationFrame(follow); });
  audio.addEventListener("pause", () => pressed(false));
  audio.addEventListener("seeked", () => { if (wanted === null) show(audio.currentTime); else go(); });
  audio.addEventListener("ended", () => { pressed(false); seek(0); });
  button.addEventListener("click", toggle);

  const timeAt = (event) => {
    const box = screen.getBoundingClientRect();
    return ((event.clientX - box.left) / box.width) * seconds;
  };
  screen.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    screen.setPointerCapture(event.pointerId);
    seek(timeAt(event));
  });
  screen.addEventListener("pointermove", (event) => { if (event.buttons & 1) seek(timeAt(event)); });
  screen.addEventListener("keydown", (event) => {
    const fine = seconds > 60 ? 1 : 0.1, coarse = seconds > 60 ? 10 : 1;
    const steps = { ArrowLeft: -fine, ArrowDown: -fine, ArrowRight: fine, ArrowUp: fine, PageDown: -coarse, PageUp: coarse };
    if (event.key in steps) seek(where() + steps[event.key]);
    else if (event.key === "Home") seek(0);
    else if (event.key === "End") seek(seconds);
    else if (event.key === " " || event.key === "Enter") toggle();
    else return;
    event.preventDefault();
  });

  /** Takes a file of so many seconds, or none; what played before stops. */
  function load(file, length) {
    audio.pause();
    wanted = null;
    if (url) URL.revokeObjectURL(url);
    url = file ? URL.createObjectURL(file) : "";
    if (file) audio.src = url;
    else audio.removeAttribute("src");
    seconds = length;
    follower = () => {};
    screen.setAttribute("aria-valuemax", length.toFixed(2));
    pressed(false);
    drawAxis();
    show(0);
  }
  function drawAxis() {
    axis.replaceChildren();
    if (!seconds) return;
    const most = Math.max(2, Math.min(10, Math.floor(axis.clientWidth / 64)));
    const step = STEPS.find((each) => seconds / each <= most) || Math.ceil(seconds / most / 60) * 60;
    for (let n = 0; n * step <= seconds * 1.0001; n++) {
      const time = n * step, text = time >= 60 ? `${Math.floor(time / 60)}:${String(Math.round(time % 60)).padStart(2, "0")}` : String(+time.toFixed(1));
      axis.append(make("span", n === 0 ? "first" : time > 0.97 * seconds ? "last" : "", text, { left: `${(100 * time) / seconds}%` }));
    }
  }
  /** Labels the picture's frequencies; `top` is its upper end in Hz. */
  function drawFrequencies(picture, top) {
    for (const old of picture.querySelectorAll(".hz")) old.remove();
    let last = -1;
    for (const hz of TICKS_HZ) {
      const height = Sound.heightOf(hz, top);
      if (height < 0.05 || height > 0.95 || height - last < 0.09) continue;
      last = height;
      picture.append(make("span", "hz", hz >= 1000 ? `${hz / 1000}k` : String(hz), { bottom: `${100 * height}%` }));
    }
  }
  let resized = 0;
  window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(drawAxis, 150); });

  return { load, seek, clock, make, drawFrequencies, onMove: (function_) => { follower = function_; }, get time() { return where(); } };
})();
