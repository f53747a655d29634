"""The report: what stands on the page, that it is whole, and that names stay names.

tests/report_browser.py opens pages in a browser; here the text is read.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html.parser
import itertools
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import cli, files, runner
from eventsim.analysis import report_graph
from eventsim.analysis import report_sections as sections
from eventsim.analysis.report import report
from eventsim.analysis.report_data import Link, command, view
from eventsim.errors import (
    EventsimError,
    FileFormatError,
    InputError,
    OutputError,
    UnknownNameError,
)
from eventsim.network import Network
from eventsim.records import Trace
from eventsim.result import Run
from tests.tiny import cartpole_policy

SCRIPTED = "tests.tiny:Tiny-v0"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&amp;\u202e{{$title}}"


class Page(html.parser.HTMLParser):
    """Elements of a page: their tags and attributes, and the text of some."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


@pytest.fixture(scope="module")
def run() -> Run:
    return runner.run(cartpole_policy(0.3), SCRIPTED, episodes=3, progress=False)


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    return Page(report(run))


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> Path:
    run.save(tmp_path / "a run")
    return tmp_path / "a run"


def unpacked(text: str, kind: str) -> np.ndarray:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    width = np.dtype(kind).itemsize
    return np.ascontiguousarray(planes.reshape(width, -1).T).view(kind).reshape(-1)


def test_the_page_is_complete_and_asks_for_nothing(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name) or ""
            assert value in ("", "data:,", "#main"), (tag, name, value)
    (policy,) = [m["content"] for m in page.all("meta") if "content-security" in str(m).lower()]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe" not in policy
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(page.scripts) == 3
    assert "@import" not in page.text


def test_the_page_says_what_the_run_says(page: Page, run: Run) -> None:
    total = run.total
    assert f"{total['reduction']:.2f}x fewer" in page.text
    assert "relative loss" in page.text
    for layer in run.layers:
        assert layer["name"] in page.text
    for row in run.energy:
        assert row["device"] in page.text
    assert "Davies et al." in page.text  # a source
    assert command(run.data) in page.text
    assert f"eventsim run tiny --env {SCRIPTED} --episodes 3 --seed 0" in page.text


def test_the_page_can_be_read_by_ear_and_by_keyboard(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    tables, captions = page.all("table"), page.all("caption")
    assert len(tables) == len(captions) >= 2
    heads = page.all("th")
    assert all(head.get("scope") in ("col", "row") for head in heads)
    sortable = [head for head in heads if "aria-sort" in head]
    assert len(sortable) > 10
    assert all(head["aria-sort"] == "none" for head in sortable)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    for attributes in (a for _, a in page.tags if a.get("role") in ("img", "region")):
        assert attributes.get("aria-label") or attributes.get("aria-labelledby")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    named = " ".join(str(a.get("aria-labelledby", "")) for _, a in page.tags).split()
    assert set(named) <= set(ids)


def test_the_page_carries_every_event(page: Page, run: Run) -> None:
    (data,) = page.data["runs"]
    assert data["steps"] == 60
    assert data["starts"] == [0, 20, 40]
    events = run.events
    assert events is not None
    for k, layer in enumerate(data["raster"]["layers"]):
        mine = events["population"] == k
        step = 20 * events["episode"][mine] + events["step"][mine]
        counts = unpacked(layer["count"], "<u4")
        np.testing.assert_array_equal(counts, np.bincount(step, minlength=60))
        np.testing.assert_array_equal(unpacked(layer["neuron"], "<u2"), events["neuron"][mine])
        np.testing.assert_allclose(
            unpacked(layer["value"], "<f4"), events["value"][mine], rtol=2.0**-11
        )
    share = unpacked(data["rates"]["share"][1], "<f4")
    np.testing.assert_allclose(share, run.counters.events[:, 1] / 8, rtol=1e-6)
    work = unpacked(data["rates"]["work"], "<f4")
    np.testing.assert_allclose(work, run.counters.synops / 48, rtol=1e-6)


def test_a_folder_gives_the_page_of_the_run(run: Run, saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    text = report(saved, out=out)
    assert out.read_text(encoding="utf-8") == text == report(Trace(saved))
    assert text == report(saved)
    from_memory, from_folder = Page(report(run)).data["runs"][0], Page(text).data["runs"][0]
    assert from_folder.pop("label") == "a run"
    assert from_memory.pop("label") == "tiny"
    assert from_folder == from_memory
    # The sizes of a dense chain leave no choice about its projections.
    assert view(saved, 10).links == (Link("input", "hidden1"), Link("hidden1", "output"))


def test_two_runs_stand_side_by_side(run: Run, saved: Path) -> None:
    page = Page(report(run, saved))
    assert len(page.data["runs"]) == 2
    assert "Side by side" in page.text
    assert "B / A" in page.text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    with pytest.raises(InputError, match="one run or two, not 3"):
        report(run, run, run)
    with pytest.raises(InputError, match="not 0"):
        report()
    with pytest.raises(InputError, match="a dict is not a run"):
        report({})  # type: ignore[arg-type]


def hostile(saved: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = saved / "run.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return saved


def test_hostile_names_stay_names(saved: Path, page: Page) -> None:
    def change(data: dict[str, Any]) -> None:
        for key in ("policy", "env"):
            data[key] = HOSTILE
        data["step_seconds_source"] = "given"
        data["versions"]["eventsim"] = HOSTILE
        for layer in data["layers"]:
            layer["name"] = f"{layer['name']}{HOSTILE}"
        for row in data["energy"]:
            row["device"] = f"{row['device']}{HOSTILE}"
            row["assumed"] = [HOSTILE]
            row["unpriced"] = [HOSTILE]

    for name in ("counters", "events"):
        (saved / f"{name}.parquet").unlink()
    bad = Page(report(hostile(saved, change)))
    assert not bad.all("img")
    assert len(bad.scripts) == 3
    assert bad.scripts[1:] == page.scripts[1:]
    known = {tag for tag, _ in page.tags}
    assert {tag for tag, _ in bad.tags} <= known
    assert not [a for _, a in bad.tags for name in a if name.startswith("on")]
    assert bad.data["runs"][0]["layers"][0]["name"] == f"input{HOSTILE}"
    assert HOSTILE in bad.text
    assert "{{$title}}" in bad.text


def test_half_a_character_can_be_written(saved: Path, tmp_path: Path) -> None:
    report(hostile(saved, lambda data: data.update(policy="\ud800")), out=tmp_path / "page.html")
    assert "? in tests.tiny" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [None, -1, 1e308, "", [], 2**70])
def test_an_edited_run_json_is_refused_or_shown(saved: Path, value: Any) -> None:
    original = json.loads((saved / "run.json").read_text(encoding="utf-8"))
    places = [(key,) for key in original]
    places += [("layers", 1, key) for key in original["layers"][1]]
    places += [("energy", 0, key) for key in original["energy"][0]]
    places += [("total", key) for key in original["total"]]
    for place in places:
        data = json.loads(json.dumps(original))
        inner = data
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        (saved / "run.json").write_text(json.dumps(data), encoding="utf-8")
        # Whatever else was raised would not be a sentence for the user.
        with contextlib.suppress(EventsimError):
            seen = view(saved, 1000)
            sections.layers(seen, "a")
            sections.energy(seen, "a")
            sections.summary(seen)


def test_a_run_without_events_or_counters_still_reports(saved: Path) -> None:
    (saved / "events.parquet").unlink()
    assert "were not recorded" in report(saved)
    (saved / "counters.parquet").unlink()
    text = report(saved)
    assert "no counters of single steps" in text
    assert "tells of 60 steps, counters are there for 0" in text


def test_a_run_without_steps_still_reports(run: Run) -> None:
    data = run.to_dict() | {"steps": 0, "episodes": 0}
    for name in ("return", "dense_return"):
        data[name] = {"mean": None, "std": None, "ci95": None, "per_episode": []}
    data["relative_loss"] = None
    for layer in data["layers"]:
        layer |= dict.fromkeys(("macs", "acs", "events", "evaluations", "activity_sparsity"))
    data["total"] = dict.fromkeys(data["total"]) | {"dense_macs": 48}
    data["energy"] = []
    none = {k: v[:0] for k, v in (run.events or {}).items()}
    counters = run.counters
    cut = type(counters)(
        counters.populations,
        counters.episode[:0],
        counters.step[:0],
        counters.reward[:0],
        counters.table[:0],
    )
    text = report(Run(data, run.network, cut, {}, none))
    assert "made no step" in text
    assert "The run has no steps" in text


def test_a_network_at_hand_is_mapped(run: Run, saved: Path) -> None:
    text = Page(report(saved)).text
    (saved / "network.safetensors").unlink()
    assert "Mapping" not in Page(report(saved)).text
    assert text == Page(report(saved, networks=[run.network])).text
    assert "Layers laid in order onto the cores" in text
    assert text.count("yes") >= 3
    assert text == Page(report(run)).text
    other = Network.from_arrays([np.ones((8, 4)), np.ones((2, 8))])
    with pytest.raises(InputError, match="layers, sizes or weights differ"):
        report(saved, networks=[other])
    with pytest.raises(InputError, match="give one for each run"):
        report(saved, networks=[])


def test_a_network_of_another_run_is_left_out(saved: Path) -> None:
    other = Network.from_arrays([np.ones((8, 4)), np.ones((2, 8))])
    files.save(saved / "network.safetensors", other)
    text = Page(report(saved)).text
    assert "Mapping" not in text
    assert "that of another run" in text


def test_the_reward_is_drawn(page: Page, run: Run) -> None:
    (data,) = page.data["runs"]
    np.testing.assert_allclose(unpacked(data["reward"], "<f4"), run.counters.reward, rtol=1e-6)
    assert "Above it the reward of a step" in page.text


def test_what_does_not_fit_is_left_out_and_said(saved: Path, run: Run) -> None:
    assert run.events is not None
    page = Page(report(saved, max_events=100))
    (data,) = page.data["runs"]
    kept = sum(len(unpacked(layer["neuron"], "<u2")) for layer in data["raster"]["layers"])
    assert 0 < kept <= 100
    assert data["raster"]["steps"] < 60
    assert f"first {data['raster']['steps']} of 60 steps" in page.text
    with pytest.raises(InputError, match="max_events"):
        report(saved, max_events=-1)


def test_bad_input_is_one_sentence(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="there is no run"):
        report(tmp_path / "absent")
    with pytest.raises(OutputError):
        report(saved, out=tmp_path / "absent" / "report.html")
    (saved / "run.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"run\.json"):
        report(saved)


def test_events_of_another_run_are_refused(saved: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["layers"][1]["neurons"] = 2

    with pytest.raises(FileFormatError, match="different runs"):
        report(hostile(saved, change))


def test_the_command_line_writes_the_page(
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "both.html"
    monkeypatch.setattr("sys.argv", ["eventsim", "report", str(saved), str(saved), "-o", str(out)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert "Written to" in capsys.readouterr().out
    assert len(Page(out.read_text(encoding="utf-8")).data["runs"]) == 2


def test_the_command_names_every_setting(run: Run) -> None:
    data = run.to_dict() | {
        "policy": "my policy.zip",
        "threshold_scale": 0.5,
        "carry_state": True,
        "dense_return": None,
        "step_seconds": 0.02,
        "step_seconds_source": "given",
        "seed": 7,
    }
    data["energy"] = data["energy"][:2]
    assert command(data) == (
        f"eventsim run 'my policy.zip' --env {SCRIPTED} --episodes 3 --seed 7 "
        "--threshold-scale 0.5 --carry-state --no-dense --device loihi --device spinnaker2 "
        "--step-seconds 0.02"
    )


def test_the_graph_draws_skips_and_loops() -> None:
    row = {"neurons": 3, "macs": 4.0, "acs": 1.0, "activity_sparsity": 0.25}
    layers = [{**row, "name": name} for name in ("a", "b<", "c")]
    links = [Link("a", "b<"), Link("b<", "c"), Link("a", "c"), Link("c", "b<"), Link("c", "c")]
    svg = report_graph.network_svg(layers, links, "x")
    assert svg.count('class="edge"') == 5
    assert "b&lt;" in svg
    assert "b<" not in svg.replace("b&lt;", "")
    assert "75.0% active" in svg
