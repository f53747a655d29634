"""Open a report in headless Chromium: no errors, zoom works, tables sort, nothing is requested.

    python -m tests.report_browser [RUN] [--screenshots docs/report]

RUN is a run's folder; by default one of 20 LunarLander episodes is made, of the policy in the zoo.
It needs Playwright (pip install playwright) and a Chromium: that of CHROMIUM, /usr/bin/chromium or
chromium on the path.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from eventsim import api
from eventsim.analysis.report import report
from eventsim.result import Run, StepCounters

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK = {"viewport": {"width": 1180, "height": 860}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 1.25,
    "is_mobile": True,
    "has_touch": True,
}
HOSTILE = (
    "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>\"&amp;"
)


class PageError(Exception):
    """What the page did wrong."""


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise PageError(what)
    print(f"ok: {what}")


def hostile_run(events: int) -> Run:
    """A run of many events whose every name tries to break out of where it stands."""
    from eventsim.network import Network, Population, Projection
    from tests.tiny import cartpole_policy

    small = api.run(cartpole_policy(0.3), episodes=1, progress=False)
    network = small.network
    names = {p.name: f"{p.name}{HOSTILE}" for p in network.populations}
    network = Network(
        tuple(Population(names[p.name], p.size, p.neuron) for p in network.populations),
        tuple(Projection(names[p.source], names[p.target], p.weights) for p in network.projections),
    )
    data = small.to_dict() | {"policy": HOSTILE, "env": HOSTILE}
    for layer in data["layers"]:
        layer["name"] += HOSTILE
    data["energy"][0]["device"] = HOSTILE
    # Twelve neurons send, three of four times.
    rng = np.random.default_rng(0)
    steps = int(events / 9)
    fired = rng.random((steps, 12)) < 0.75
    step, sender = np.nonzero(fired)
    table = np.zeros((steps, 3, 5), np.int64)
    for k, chosen in enumerate((slice(0, 4), slice(4, 12))):
        table[:, k, 1] = fired[:, chosen].sum(axis=1)
    counters = StepCounters(
        tuple(names.values()),
        np.arange(steps) * 25 // steps,
        np.zeros(steps, np.int64),
        np.zeros(steps),
        table,
    )
    starts = np.searchsorted(counters.episode, np.arange(25))
    counters = StepCounters(
        counters.populations,
        counters.episode,
        np.arange(steps) - starts[counters.episode],
        counters.reward,
        table,
    )
    arrays = {
        "episode": counters.episode[step],
        "step": counters.step[step],
        "time": counters.step[step] * 0.02,
        "population": (sender >= 4).astype(np.int64),
        "neuron": np.where(sender >= 4, sender - 4, sender),
        "value": rng.normal(size=step.size),
    }
    return Run(data, network, counters, {}, arrays)


def watch(page: Any) -> list[str]:
    """Collect whatever a page says, asks for, or fails at."""
    said: list[str] = []
    page.on("console", lambda m: said.append(f"console {m.type}: {m.text}"))
    page.on("pageerror", lambda e: said.append(f"error: {e}"))
    page.on("dialog", lambda d: (said.append(f"dialog: {d.message}"), d.dismiss()))
    local = ("file:", "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(local) or said.append(f"request: {r.url}"))
    return said


def load(page: Any, path: Path) -> None:
    page.goto(path.resolve().as_uri())
    page.wait_for_selector("body[data-drawn]", timeout=120_000)


def shown(page: Any) -> tuple[int, int]:
    """First and last step that the raster shows."""
    text = re.sub(r"[^\d–S ]", "", page.inner_text("#a-status").partition(" of ")[0])
    first, _, last = text.replace("Steps", "").replace("S", "").strip().partition("–")
    return int(first.replace(" ", "")), int((last or first).replace(" ", ""))


def pixels(page: Any) -> str:
    """What the raster's pictures are made of; it changes when they are drawn anew."""
    return str(
        page.evaluate(
            "[...document.querySelectorAll('#a-raster image')].map(i => i.getAttribute("
            "'xlink:href') || i.getAttribute('href')).join().length"
        )
    )


def check_zoom(page: Any) -> None:
    whole = shown(page)
    before = pixels(page)
    page.click("[data-do=in]")
    half = shown(page)
    expect(abs((half[1] - half[0]) - (whole[1] - whole[0]) / 2) <= 2, "a button zooms by two")
    expect(pixels(page) != before, "the raster was drawn anew")
    # The button is reached and pressed by keyboard alone.
    page.focus("[data-do=left]")
    page.keyboard.press("Enter")
    left = shown(page)
    expect(left[0] < half[0], "the keyboard moves to earlier steps")
    page.click("[data-do=all]")
    expect(shown(page) == whole, "the whole run comes back")
    page.locator("#a-raster").evaluate("plot => plot.scrollIntoView({block: 'center'})")
    box = page.locator("#a-raster .nsewdrag").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.wait_for_timeout(500)
    a, b = shown(page)
    width = whole[1] - whole[0]
    expect(abs((b - a) - 0.2 * width) < 0.02 * width, "dragging over the raster zooms to it")
    for _ in range(30):
        page.click("[data-do=in]")
    status = page.inner_text("#a-status")
    expect("a cell is one neuron in one step" in status, "zooming ends at single events")
    page.select_option("#a-episode", index=2)
    expect(shown(page)[0] > 0, "an episode can be chosen")
    page.click("[data-do=all]")


def check_sort(page: Any) -> None:
    def column(k: int) -> list[str]:
        cells = page.locator(f"#a-layers tbody tr > :nth-child({k})")
        return [cells.nth(i).get_attribute("data-v") for i in range(cells.count())]

    total = page.inner_text("#a-layers tfoot th")
    page.click("#a-layers thead th:nth-child(8) button")
    values = [float(v) for v in column(8)]
    expect(values == sorted(values, reverse=True), "a heading sorts, largest first")
    head = page.locator("#a-layers thead th:nth-child(8)")
    expect(head.get_attribute("aria-sort") == "descending", "aria-sort says so")
    page.focus("#a-layers thead th:nth-child(8) button")
    page.keyboard.press("Enter")
    values = [float(v) for v in column(8)]
    expect(values == sorted(values), "the keyboard turns the order round")
    page.click("#a-layers thead th:nth-child(1) button")
    names = column(1)
    expect(names == sorted(names, key=str.lower), "names sort by letter")
    expect(page.inner_text("#a-layers tfoot th") == total, "the total stays below")


def check_speed(page: Any) -> None:
    took = page.evaluate(
        """async () => {
          const times = [];
          for (const name of ["in", "in", "out", "all", "in", "in", "in"]) {
            const start = performance.now();
            document.querySelector(`[data-do=${name}]`).click();
            await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            times.push(performance.now() - start);
          }
          return times;
        }"""
    )
    print(f"zooming in a million events, ms until drawn: {[round(t) for t in took]}")
    expect(max(took) < 2000, "every zoom is drawn within 2 s, without a GPU")


def check_layout(page: Any, name: str) -> None:
    across = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    expect(across <= 0, f"{name}: the page is no wider than the window")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, select, [role=img], [role=region], table")]
          .filter(e => !e.closest(".js-plotly-plot > *") && !(e.getAttribute("aria-label")
            || e.getAttribute("aria-labelledby") || e.textContent.trim() || e.labels?.length))
          .length"""
    )
    expect(unnamed == 0, f"{name}: every control, picture and table has a name")


def save(page: Any, path: Path, **options: Any) -> None:
    """Write a screenshot in few colours, which is a third of the size."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, **options)
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        if small.width > 1200:
            small = small.resize((small.width // 2, small.height // 2), Image.Resampling.LANCZOS)
        small.quantize(160, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def check(browser: Any, path: Path, pictures: Path | None) -> None:
    for name, options in (
        ("light", DESK),
        ("dark", {**DESK, "color_scheme": "dark"}),
        ("phone", PHONE),
    ):
        page = browser.new_context(**options).new_page()
        said = watch(page)
        load(page, path)
        check_layout(page, name)
        if pictures is not None:
            save(page, pictures / f"{name}.png", full_page=True)
        if name == "light":
            reward = page.locator("#a-raster .annotation-text", has_text="reward per step")
            expect(reward.count() == 1, "the reward is above the raster")
            check_zoom(page)
            check_sort(page)
            page.emulate_media(media="print")
            page.wait_for_timeout(300)
            closed = page.evaluate("document.querySelectorAll('details:not([open])').length")
            expect(closed == 0, "on paper the sources are all there")
            expect(len(page.pdf(format="A4")) > 10_000, "it prints")
        expect(said == [], f"{name}: no console message, no request {said or ''}")
        page.context.close()


def check_hostile(browser: Any, path: Path) -> None:
    page = browser.new_context(**DESK).new_page()
    said = watch(page)
    load(page, path)
    expect(page.evaluate("window.broken") is None, "hostile names run nothing")
    expect(page.locator("img").count() == 0, "hostile names make no elements")
    expect(HOSTILE.replace("'", "") in page.inner_text("#provenance").replace("'", ""), "all shown")
    check_speed(page)
    expect(said == [], f"hostile names: no console message, no request {said or ''}")


def check_all(browser: Any, run: Any, other: Any, pictures: Path | None) -> None:
    """Check the pages of a run, of two, and of one whose names are hostile."""
    with tempfile.TemporaryDirectory() as folder:
        one, two, evil = (Path(folder) / f"{name}.html" for name in ("one", "two", "evil"))
        report(run, out=one)
        report(run, other, out=two)
        report(hostile_run(1_000_000), out=evil)
        print(f"a report: {one.stat().st_size / 1e6:.1f} MB")
        check(browser, one, pictures)
        page = browser.new_context(viewport={"width": 1500, "height": 900}).new_page()
        said = watch(page)
        load(page, two)
        check_layout(page, "two runs")
        if pictures is not None:
            save(page, pictures / "two-runs.png", full_page=True)
        expect(said == [], f"two runs: no console message, no request {said or ''}")
        check_hostile(browser, evil)


def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
    if not Path(found).exists():
        raise SystemExit("no Chromium: apt-get install chromium, or name one by CHROMIUM")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--screenshots", type=Path, help="where to keep pictures")
    options = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("no Playwright: pip install playwright") from None
    runs: tuple[Any, Any] = (options.run, options.run)
    if options.run is None:
        runs = (
            api.run("lunarlander", episodes=20, progress=False),
            api.run("lunarlander", episodes=20, threshold_scale=0.0, progress=False),
        )
    # Not before the runs: Box2D crashes if its own warnings are errors while it is loaded.
    warnings.simplefilter("error")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            check_all(browser, *runs, options.screenshots)
        finally:
            browser.close()


if __name__ == "__main__":
    try:
        main()
    except PageError as failure:
        sys.exit(f"FAILED: {failure}")
