/* The report of a data set: a player in each card, and the filter over classes. */
for (const element of document.querySelectorAll("[data-player]")) {
  element.append(makePlayer(element.dataset.player, element.dataset.name));
}
byId("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  let found = 0;
  for (const element of document.querySelectorAll("#clips [data-class]")) {
    element.hidden = !element.dataset.class.toLowerCase().includes(wanted);
    found += !element.hidden;
  }
  byId("none-found").hidden = found > 0;
});
