"""The page as a reader meets it, in a Chromium that is there already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esc_ensemble.report import load, write_report
from tests.browser import chromium
from tests.report.blends import made_up, write_made_up
from tests.report.conftest import Reported

NAMES = ["<script>window.broken = 1</script>", "<img src=x onerror='window.broken=2'>", "<b>bold</b>", "a & b"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


class Visit:
    """A page opened in a window of its own, with all that it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1400, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self._note(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def show(self, selector: str) -> None:
        """Scrolls to an element and waits for a chart in it to be drawn."""
        self.page.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{behavior: 'instant'}})")
        if selector.startswith(".chart"):
            self.page.wait_for_selector(f"{selector} .main-svg")

    def show_all(self) -> None:
        for name in self.page.eval_on_selector_all(".chart", "all => all.map((one) => one.dataset.chart)"):
            self.show(f'.chart[data-chart="{name}"]')


@pytest.fixture
def visit(browser: Any, reported: Reported) -> Iterator[Visit]:
    opened = Visit(browser, reported.page)
    yield opened
    opened.context.close()


def test_nothing_is_asked_for_and_nothing_goes_wrong(visit: Visit, reported: Reported) -> None:
    visit.show_all()
    visit.page.locator(".play").first.click()
    visit.page.wait_for_timeout(200)
    asked = [url for url in visit.requests if not url.startswith(("data:", "blob:"))]
    assert asked == [reported.page.as_uri()]
    assert visit.complaints == []


def test_a_printed_page_has_all_charts(visit: Visit) -> None:
    n_charts = visit.page.locator(".chart").count()
    assert visit.page.locator(".chart .main-svg").count() < n_charts  # those further down wait to be looked at
    assert visit.page.pdf().startswith(b"%PDF")
    assert visit.page.locator(".chart:has(.main-svg)").count() == n_charts
    assert visit.complaints == []


def test_the_playhead_moves_as_the_clip_plays_and_one_clip_plays_at_a_time(visit: Visit) -> None:
    heads = visit.page.locator("[data-list] .playhead")
    places = [heads.nth(n).evaluate("head => parseFloat(head.style.left)") for n in range(2)]
    buttons = visit.page.locator("[data-list] .play")
    buttons.nth(0).click()
    visit.page.wait_for_function(
        "start => parseFloat(document.querySelector('[data-list] .playhead').style.left) > start + 10", arg=places[0]
    )
    assert buttons.nth(0).get_attribute("aria-pressed") == "true"
    buttons.nth(1).click()
    visit.page.wait_for_function(
        "start => parseFloat(document.querySelectorAll('[data-list] .playhead')[1].style.left) > start + 5",
        arg=places[1],
    )
    assert buttons.nth(0).get_attribute("aria-pressed") == "false"
    assert visit.complaints == []


def test_clicks_and_keys_move_the_playhead(visit: Visit) -> None:
    screen = visit.page.locator("[data-list] .screen").first
    screen.scroll_into_view_if_needed()
    box = screen.bounding_box()
    assert box
    visit.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 20)
    head = visit.page.locator("[data-list] .playhead").first
    assert head.evaluate("head => parseFloat(head.style.left)") == pytest.approx(50, abs=1)
    before = float(screen.get_attribute("aria-valuenow") or "nan")
    screen.press("ArrowRight")
    assert float(screen.get_attribute("aria-valuenow") or "nan") == pytest.approx(before + 0.1, abs=0.011)
    visit.page.locator("[data-list] .play").first.click()
    visit.page.wait_for_timeout(150)
    assert float(screen.get_attribute("aria-valuenow") or "nan") > before, "it plays on from where it was put"
    visit.page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 20)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20)
    visit.page.mouse.up()
    assert head.evaluate("head => parseFloat(head.style.left)") < 45


def test_a_cell_lists_its_clips(visit: Visit, reported: Reported) -> None:
    evidence = load(reported.blend)
    visit.show('.chart[data-chart="confusion"]')
    label, answer = int(evidence.labels[0]), int(evidence.predicted[0])
    inside = (evidence.labels == label) & (evidence.predicted == answer)
    point = visit.page.evaluate(
        """([row, column]) => {
            const plot = document.querySelector('.chart[data-chart="confusion"] .js-plotly-plot');
            const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
            return [box.x + xaxis._offset + xaxis.d2p(column), box.y + yaxis._offset + yaxis.d2p(row)];
        }""",
        [label, answer],
    )
    visit.page.mouse.move(*point)
    visit.page.mouse.click(*point)
    visit.page.wait_for_selector("#cell-clips .card")
    assert visit.page.locator("#cell-clips .card").count() == min(40, inside.sum())
    said = visit.page.locator("#cell-clips h4").inner_text()
    assert evidence.class_names[label] in said and f"{inside.sum()} clip" in said


def test_the_table_of_pairs_lists_clips_too(visit: Visit) -> None:
    button = visit.page.locator("[data-cell]").first
    button.click()
    row = button.locator("xpath=ancestor::tr")
    true, heard = row.locator("th").inner_text(), row.locator("td").first.inner_text()
    assert f"{true} heard as {heard}" in visit.page.locator("#cell-clips h4").inner_text()


def test_the_toggle_switches_the_theme_of_page_and_charts(visit: Visit) -> None:
    def ground() -> tuple[str, str]:
        visit.show('.chart[data-chart="scores"]')
        return visit.page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
                document.querySelector('.chart[data-chart="scores"] .js-plotly-plot')._fullLayout.paper_bgcolor]"""
        )

    light = ground()
    visit.page.locator("#theme").click()
    visit.page.wait_for_timeout(300)
    dark = ground()
    assert light[0] != dark[0] and light[1] == "#ffffff" and dark[1] == "#191c21"
    visit.page.reload()
    assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_dark_machine_gets_a_dark_page(browser: Any, reported: Reported) -> None:
    opened = Visit(browser, reported.page, scheme="dark")
    opened.show('.chart[data-chart="scores"]')
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 24)"
    opened.context.close()


def test_a_choice_changes_its_own_chart(visit: Visit) -> None:
    visit.show(".chart[data-chart='embedding-all']".replace("'", '"'))
    visit.page.get_by_role("button", name="fold 2", exact=True).click()
    visit.page.wait_for_timeout(200)
    assert visit.page.locator('.chart[data-chart="embedding-2"]').count() == 1
    visit.page.get_by_role("button", name="recall", exact=True).click()
    assert visit.page.locator('.chart[data-chart="per_class-recall"]').count() == 1


@pytest.mark.parametrize("width", [400, 760, 1400])
def test_nothing_hangs_over_the_edge(browser: Any, reported: Reported, width: int) -> None:
    opened = Visit(browser, reported.page, width=width)
    opened.show_all()
    opened.page.evaluate("document.querySelector('[data-cell]')?.click()")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    too_wide = (
        "all => all.filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.className)"
    )
    assert opened.page.eval_on_selector_all("section, .chart, .card, .main-svg, h2, p", too_wide) == []
    opened.context.close()


def test_names_with_markup_run_nothing(browser: Any, tmp_path: Path) -> None:
    made = made_up()
    made["class_names"] = NAMES
    members = {NAMES[0]: "gone", NAMES[1]: "gone-too"}
    clip_ids = [f"{NAMES[n % 4]}{n}" for n in range(60)]
    folder = write_made_up(tmp_path / "mix", **made, members=members, clip_ids=clip_ids, name=NAMES[1])
    for width in (400, 1400):
        opened = Visit(browser, write_report(load(folder)).path, width=width)
        opened.show_all()
        opened.page.evaluate("document.querySelector('[data-cell]').click()")
        assert opened.page.evaluate("window.broken") is None
        assert opened.page.locator("main img").count() == 0
        assert opened.complaints == []
        assert opened.page.locator("h1").inner_text() == NAMES[1]
        opened.context.close()
