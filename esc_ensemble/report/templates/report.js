/* The report of a blend or a run: lists of clips, and which of them a click shows. */
const { classes, members, clips, lists } = payload;
const percent = (share) => (share >= 0.9995 ? "100 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const nameOf = (label) => (label < 0 ? "no label" : classes[label]);

// ---- clips ------------------------------------------------------------------------------------------------------
function makeCard(place) {
  const [id, fold, label, top, votes, ofTrue] = clips[place];
  const answer = top[0][0];
  const right = answer === label;
  const verdict = make("span", { className: "verdict" });
  if (label < 0) verdict.append(make("span", {}, `heard as ${nameOf(answer)}`));
  else if (right) verdict.append(make("span", { className: "good" }, nameOf(label)));
  else verdict.append(nameOf(label), make("span", { className: "arrow" }, "heard as"), make("span", { className: "bad" }, nameOf(answer)));
  const bar = (guess, share, extra = "") => make("div", { className: `guess${guess === label ? " true" : ""}${extra}` },
    make("span", {}, nameOf(guess)), make("span", { className: "track" }, make("i", { style: { width: `${100 * share}%` } })),
    make("span", {}, percent(share)));
  const guesses = make("div", { className: "guesses" }, ...top.map(([guess, share]) => bar(guess, share)));
  if (label >= 0 && !top.some(([guess]) => guess === label)) guesses.append(bar(label, ofTrue, " rest"));
  const card = make("article", { className: "card" },
    make("div", { className: "card-head" }, verdict, make("span", { className: "card-id" }, `${id} · fold ${fold}`)),
    media[place] ? makePlayer(place, id) : null, guesses);
  if (members.length > 1) {
    card.append(make("div", { className: "votes" }, ...votes.map((vote, number) =>
      make("span", {}, `${members[number]}: `, make("b", { className: vote === label ? "right" : "" }, nameOf(vote))))));
  }
  card.dataset.place = place;
  return card;
}
const MOST_LISTED = 40;
function showClips(shelf, title, places) {
  shelf.classList.add("filled");
  const chart = shelf.parentElement.querySelector(".chart");  // beside it: no taller than it
  const beside = shelf.offsetTop < chart.parentElement.offsetTop + chart.offsetHeight;
  shelf.style.maxHeight = beside ? `${Math.max(420, chart.offsetHeight)}px` : "";
  shelf.scrollTop = 0;
  shelf.replaceChildren();
  if (title) shelf.append(make("h4", {}, title));
  const heard = places.filter((place) => media[place]).length;
  if (places.length > 1 || !heard) shelf.append(make("p", { className: "more" }, heard ? `${heard} of ${places.length} can be played here` : "Not among the clips that this file can play (--clips)."));
  shelf.append(...places.slice(0, MOST_LISTED).map(makeCard));
  if (places.length > MOST_LISTED) shelf.append(make("p", { className: "more" }, `and ${places.length - MOST_LISTED} more`));
}
function showCell(label, answer) {
  const places = clips.flatMap((clip, place) => (clip[2] === label && clip[3][0][0] === answer ? [place] : []));
  places.sort((a, b) => Boolean(media[b]) - Boolean(media[a]) || clips[b][3][0][1] - clips[a][3][0][1]);
  const what = label === answer ? `${nameOf(label)}, rightly heard` : `${nameOf(label)} heard as ${nameOf(answer)}`;
  showClips(byId("cell-clips"), `${what}: ${plural(places.length, "clip")}`, places);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-cell]");
  if (!button) return;
  const [label, answer] = button.dataset.cell.split(",").map(Number);
  showCell(label, answer);
  byId("cell-clips").scrollIntoView({ block: "nearest" });
});
for (const list of document.querySelectorAll("[data-list]")) {
  const places = lists[list.dataset.list];
  if (places.length) list.append(...places.map(makeCard));
  else list.append(make("p", { className: "none" }, "There is none."));
}

pointClicked = (element, point) => {
  if (element.dataset.chart === "confusion") showCell(point.y, point.x);
  else if (element.dataset.chart.startsWith("embedding")) showClips(byId("map-clips"), "", [point.customdata]);
};
