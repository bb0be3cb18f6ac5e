/* What every page does: draws charts when they come into view, swaps colors, plays clips. Texts go in as text, never as markup. */
const payload = JSON.parse(document.getElementById("payload").textContent);
const { media, dark } = payload;
const byId = (id) => document.getElementById(id);

// ---- elements ---------------------------------------------------------------------------------------------------
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") Object.assign(element.style, value);
    else if (name in element && name !== "role") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// ---- theme ------------------------------------------------------------------------------------------------------
const root = document.documentElement;
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
function toggleTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("esc-ens-theme", root.dataset.theme); } catch (error) { /* it holds until the page is closed */ }
  redraw();
}
byId("theme").addEventListener("click", toggleTheme);
prefersDark.addEventListener("change", redraw);

// ---- charts -----------------------------------------------------------------------------------------------------
const NARROW = 560;
const LONGEST_NARROW = 19;
let pointClicked = () => {};  // a page with something to show for a point sets it
const drawn = new Map();  // element -> whether it was narrow when it was drawn
const settings = { displayModeBar: false, responsive: true, displaylogo: false, showTips: false };

function read(name) {
  let text = byId(`chart-${name}`).textContent;
  if (isDark()) text = text.replace(/#[0-9a-f]{6}\b/g, (colour) => dark[colour] || colour);
  return JSON.parse(text);
}
function fitNarrow(layout, width) {
  for (const key of Object.keys(layout)) {
    if (!/^[xy]axis/.test(key)) continue;
    const axis = layout[key];
    axis.tickfont = { ...axis.tickfont, size: 10 };
    if (Array.isArray(axis.ticktext)) {
      axis.ticktext = axis.ticktext.map((text) => shorten(text, width < 440 ? 9 : 13));
    }
  }
  if (layout.meta && layout.meta.stack) {
    const sides = [["xaxis", "yaxis", [0.6, 1]], ["xaxis2", "yaxis2", [0, 0.38]]];
    for (const [x, y, domain] of sides) {
      layout[x].domain = [0, 1];
      layout[y].domain = domain;
      layout[y].showticklabels = true;
    }
    layout.height = Math.round(layout.height * 1.55 + 60);
  }
}
function shorten(text, longest) {
  const plain = make("textarea", { innerHTML: text }).value;  // entities to letters; nothing in a textarea runs
  if (plain.includes(" → ")) return plain.split(" → ").map((part) => escaped(cut(part, longest))).join(" → ");
  return escaped(cut(plain, LONGEST_NARROW));
}
const cut = (text, longest) => (text.length <= longest ? text : `${text.slice(0, longest - 1)}…`);
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function draw(element) {
  const figure = read(element.dataset.chart);
  const narrow = element.clientWidth < NARROW;
  if (narrow) fitNarrow(figure.layout, element.clientWidth);
  const first = !drawn.has(element);
  drawn.set(element, narrow);
  const place = element.firstElementChild;
  place.style.height = `${figure.layout.height}px`;
  return Plotly.react(place, figure.data, figure.layout, settings).then(() => {
    if (first) listen(element, place);
  });
}
function redraw() {
  for (const element of drawn.keys()) draw(element);
}
function listen(element, place) {
  place.on("plotly_click", (event) => pointClicked(element, event.points[0]));
}
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "400px" });
for (const element of document.querySelectorAll(".chart")) {
  // Room for the chart before it is drawn, so that nothing jumps.
  const height = /"height":(\d+)/.exec(byId(`chart-${element.dataset.chart}`).textContent);
  element.append(make("div", { style: { height: `${height ? height[1] : 300}px` } }));
  seen.observe(element);
}
window.addEventListener("beforeprint", () => {
  for (const element of document.querySelectorAll(".chart")) {
    seen.unobserve(element);
    if (!drawn.has(element)) draw(element);
  }
});
let resized = 0;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => {
    for (const [element, narrow] of drawn) if (element.clientWidth < NARROW !== narrow) draw(element);
  }, 150);
});
for (const group of document.querySelectorAll(".choice")) {
  const chart = group.closest("figure, section").querySelector(".chart");
  group.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
    chart.dataset.chart = button.dataset.show;
    seen.unobserve(chart);
    draw(chart);
  });
}

// ---- sound: one player for the whole page, so that one clip plays at a time --------------------------------------
const audio = new Audio();
audio.preload = "auto";
let current = null;  // the player that owns `audio`
const urls = new Map();

function source(place) {
  // A blob can be sought in every browser, a data URI cannot.
  if (!urls.has(place)) {
    const bytes = Uint8Array.from(atob(media[place].audio.split(",")[1]), (letter) => letter.charCodeAt(0));
    urls.set(place, URL.createObjectURL(new Blob([bytes], { type: "audio/mpeg" })));
  }
  return urls.get(place);
}
function follow() {
  if (!current) return;
  current.show(audio.currentTime);
  if (!audio.paused) requestAnimationFrame(follow);
}
audio.addEventListener("play", () => { if (current) current.pressed(true); requestAnimationFrame(follow); });
audio.addEventListener("pause", () => { if (current) current.pressed(false); });
audio.addEventListener("seeked", follow);
audio.addEventListener("ended", () => { if (current) { current.time = 0; current.show(0); } });

function legible(ticks) {
  const kept = [];
  for (const tick of [...ticks].reverse()) {
    const above = kept.length ? kept[kept.length - 1][1] : 1.1;
    if (tick[1] > 0.07 && tick[1] < 0.93 && above - tick[1] > 0.2) kept.push(tick);
  }
  return kept;
}
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60];
function timeAxis(seconds, across) {
  const step = STEPS.find((each) => seconds / each <= 6) || 120;
  const axis = make("div", { className: "times", "aria-hidden": "true" });
  for (let n = 0; n * step < seconds - step / 3; n += 1) {
    axis.append(make("span", { style: { left: `${100 * across(n * step)}%` } }, String(Number((n * step).toFixed(2)))));
  }
  axis.append(make("span", { className: "unit" }, "s"));
  return axis;
}
/* A player of one clip: its pictures above each other on one axis of time, and a playhead over all of them. */
function makePlayer(place, name) {
  const { seconds, own, span, pictures, ticks } = media[place];
  const sounds = Boolean(media[place].audio);
  const head = make("div", { className: "playhead" });
  const slider = {
    role: "slider", tabIndex: 0, "aria-label": `Position in ${name}`, "aria-valuemin": "0", "aria-valuemax": seconds.toFixed(2),
  };
  const screen = make("div", { className: sounds ? "screen" : "screen mute", ...(sounds ? slider : {}) });
  for (const { title, uri, plain } of pictures) {
    const labels = (plain ? [] : legible(ticks)).map(([hz, height]) =>
      make("span", { className: "hz", style: { bottom: `${100 * height}%` } }, hz >= 1000 ? `${hz / 1000} kHz` : `${hz} Hz`));
    screen.append(make("div", { className: "picture" },
      make("img", { src: uri, alt: `${title} of ${name}`, decoding: "async" }), make("span", { className: "channel" }, title), ...labels));
  }
  const across = (time) => Math.min(1, Math.max(0, (time - span[0]) / (span[1] - span[0])));
  if (own < seconds - 0.05) screen.append(make("div", { className: "repeat", style: { left: `${100 * across(own)}%` } }));
  const button = make("button", { type: "button", className: "play", "aria-label": "Play", "aria-pressed": "false" });
  const now = make("span", {}, "0.0 s");
  const length = own < seconds - 0.05 ? `${own.toFixed(1)} s, repeated to ${seconds.toFixed(1)} s` : `${seconds.toFixed(1)} s`;
  if (!sounds) return make("div", { className: "player mute" }, screen, timeAxis(seconds, across));
  screen.append(head);
  const player = {
    place,
    time: 0,
    show(time) {
      this.time = time;
      head.style.left = `${100 * across(time)}%`;
      now.textContent = `${time.toFixed(1)} s`;
      screen.setAttribute("aria-valuenow", time.toFixed(2));
      screen.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${seconds.toFixed(1)} seconds`);
    },
    pressed(on) {
      button.setAttribute("aria-pressed", String(on));
      button.setAttribute("aria-label", on ? "Pause" : "Play");
    },
    take() {
      if (current === this) return;
      audio.pause();
      if (current) current.pressed(false);
      current = this;
      audio.src = source(place);
      audio.currentTime = this.time;
    },
    toggle() {
      if (current === this && !audio.paused) { audio.pause(); return; }
      this.take();
      audio.play().catch((error) => { now.textContent = `cannot be played: ${error.message}`; });
    },
    seek(time) {
      const wanted = Math.min(seconds, Math.max(0, time));
      this.show(wanted);
      if (current === this) audio.currentTime = wanted;
    },
  };
  const timeAt = (event) => {
    const box = screen.getBoundingClientRect();
    return span[0] + ((event.clientX - box.left) / box.width) * (span[1] - span[0]);
  };
  screen.addEventListener("pointerdown", (event) => {
    screen.setPointerCapture(event.pointerId);
    player.take();
    player.seek(timeAt(event));
  });
  screen.addEventListener("pointermove", (event) => { if (event.buttons) player.seek(timeAt(event)); });
  screen.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -0.1, ArrowDown: -0.1, ArrowRight: 0.1, ArrowUp: 0.1, PageDown: -1, PageUp: 1 };
    if (event.key in steps) player.seek(player.time + steps[event.key]);
    else if (event.key === "Home") player.seek(0);
    else if (event.key === "End") player.seek(seconds);
    else if (event.key === " " || event.key === "Enter") player.toggle();
    else return;
    event.preventDefault();
  });
  button.addEventListener("click", () => player.toggle());
  player.show(0);
  const clock = make("div", { className: "clock" }, now, make("span", {}, length));
  return make("div", { className: "player" }, button, screen, timeAxis(seconds, across), clock);
}

// ---- where one is on the page -----------------------------------------------------------------------------------
const links = new Map([...document.querySelectorAll(".bar nav a")].map((link) => [link.hash.slice(1), link]));
const spy = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const [id, link] of links) link.classList.toggle("here", id === entry.target.id);
  }
}, { rootMargin: "-30% 0px -65% 0px" });
for (const section of document.querySelectorAll("section")) spy.observe(section);
