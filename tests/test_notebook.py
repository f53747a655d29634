"""What a notebook shows of an object: tables in HTML, every text escaped."""

from __future__ import annotations

import html.parser
from typing import Any

import numpy as np
import pytest

from eventsim import Delta, Input, Network, Population, Projection
from eventsim.models.policy import Policy
from eventsim.runner import Evaluation
from tests.tiny import cartpole_policy

NAME = "<script>alert(1)</script>"


class Texts(html.parser.HTMLParser):
    """Cells of all tables, and the tags that are open at the end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.seen: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.seen.add(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("td", "th", "caption"):
            self.cells[-1] += data


def hostile() -> Network:
    return Network(
        (Population(NAME, 4, Input()), Population("b", 2, Delta("tanh"))),
        (Projection(NAME, "b", np.eye(2, 4)),),
        name=NAME,
    )


def policy() -> Policy:
    made = cartpole_policy().with_network(hostile())
    return made.with_metadata(name=NAME, nested={"not": "shown"})


@pytest.mark.parametrize(
    ("shown", "cells"),
    [
        (hostile(), [NAME, "b", "delta tanh", "75.0%", "8"]),
        (policy(), [NAME, "Argmax", "0 operations per step", "CartPole-v1", "75.0%"]),
        (Evaluation((1.0, 2.0, 3.0)), ["2", "1", "3", "-0.484 to 4.48"]),
        (Evaluation(()), ["–", "0"]),
    ],
    ids=["network", "policy", "evaluation", "no episode"],
)
def test_tables_with_every_text_escaped(shown: Any, cells: list[str]) -> None:
    found = Texts(shown._repr_html_())
    assert found.tags == []
    assert "script" not in found.seen
    assert set(cells) <= set(found.cells), found.cells


def test_a_network_says_what_it_is_in_a_line() -> None:
    assert repr(cartpole_policy().network) == "<Network 'tiny': 4-8-2 neurons, 20 of 48 synapses>"
