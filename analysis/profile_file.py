"""Reads a device profile (TOML, schema eventsim-profile/1) and refuses what is not in order."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from eventsim.analysis.profile import LABELS, Price, Profile
from eventsim.analysis.toml_file import CONFIDENCES, TomlReader

SCHEMA = "eventsim-profile/1"
GRADED = ("native", "assumed", "none")
UPDATES = ("every_step", "on_event")
BASES = ("measured", "simulated", "derived", "average", "assumed")
ENERGY = {"J": 0, "mJ": -3, "uJ": -6, "nJ": -9, "pJ": -12, "fJ": -15}
POWER = {"W": 0, "mW": -3, "uW": -6, "nW": -9}

_TEXTS = ("schema", "name", "title", "process", "precision", "graded", "updates")
_LISTS = ("assumptions", "unpriced")
_REQUIRED_TABLES = ("mac", "ac", "update", "event", "static")
# A table is one of these; the keys it must and may have beside the first.
_FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "value": (("unit", "basis", "includes", "source", "confidence"), ("note", "low", "high")),
    "unknown": ((), ("note",)),
    "included_in": ((), ("note",)),
    "borrowed_from": (("note",), ()),
}


def parse_profile(text: str, where: str) -> Profile:
    """Parse the text of a profile file.

    Parameters
    ----------
    text : str
        TOML.
    where : str
        Name of the file, for error messages.

    Raises
    ------
    FileFormatError
        If it is not TOML, or a key is missing, unknown or out of range; the message has file,
        line (found by searching the text) and key.
    """
    return _Reader(text, where).profile()


class _Reader(TomlReader):
    def profile(self) -> Profile:
        data = self.data
        self.only_known(data, (*_TEXTS, *_LISTS, *LABELS), "")
        texts = {key: self.string(data, "", key) for key in _TEXTS}
        self.choice(texts["schema"], (SCHEMA,), "", "schema")
        self.choice(texts["graded"], GRADED, "", "graded")
        self.choice(texts["updates"], UPDATES, "", "updates")
        lists = {key: self.strings(key) for key in _LISTS}
        for key in _REQUIRED_TABLES:
            if key not in data:
                raise self.fail(
                    f"is missing; add the table [{key}], with 'unknown = true' if no figure is "
                    "published",
                    "",
                    key,
                )
        if texts["updates"] == "on_event" and "update_inactive" in data:
            raise self.fail(
                "has no meaning where updates = 'on_event'; leave it out", "update_inactive"
            )
        prices = {key: self.price(key) for key in LABELS if key in data}
        prices = {key: self.resolved(key, price, prices) for key, price in prices.items()}
        mac = prices["mac"]
        if texts["graded"] == "none" and mac.known:
            raise self.fail(
                "has a price, but graded = 'none'; write 'unknown = true', or graded = 'assumed'",
                "mac",
            )
        if texts["graded"] == "assumed" and mac.basis != "assumed":
            raise self.fail(
                "must be borrowed or of basis 'assumed' where graded = 'assumed'", "mac"
            )
        return Profile(
            name=texts["name"],
            title=texts["title"],
            process=texts["process"],
            precision=texts["precision"],
            graded=texts["graded"],
            updates=texts["updates"],
            prices=MappingProxyType(prices),
            assumptions=lists["assumptions"],
            unpriced=lists["unpriced"],
        )

    def price(self, name: str) -> Price:
        table = self.data[name]
        if not isinstance(table, dict):
            raise self.fail(f"must be a table [{name}]", "", name)
        forms = [form for form in _FORMS if form in table]
        if len(forms) != 1:
            found = " and ".join(forms) or "none of them"
            raise self.fail(
                f"must have exactly one of value, unknown, included_in, borrowed_from; it has "
                f"{found}",
                name,
            )
        form = forms[0]
        required, optional = _FORMS[form]
        if name == "static" and form == "value":
            required = (*required, "per")
        self.only_known(table, (form, *required, *optional), name)
        texts: dict[str, Any] = {key: self.string(table, name, key) for key in required}
        written = [key for key in optional if key in table and key not in ("low", "high")]
        texts |= {key: self.string(table, name, key) for key in written}
        if form == "unknown":
            if table["unknown"] is not True:
                raise self.fail("must be true, or left out", name, "unknown")
            return Price(**texts)
        if form != "value":
            texts[form] = self.string(table, name, form)
            return Price(**texts)
        units = POWER if name == "static" else ENERGY
        unit = texts.pop("unit")
        if unit not in units:
            kind = "a power" if name == "static" else "an energy"
            raise self.fail(f"is '{unit}'; give {kind} in one of {', '.join(units)}", name, "unit")
        self.choice(texts["basis"], BASES, name, "basis")
        self.choice(texts["confidence"], CONFIDENCES, name, "confidence")
        number = self.number(table, name, "value")
        # Through Decimal: 23.6 pJ is then the float nearest to 23.6e-12.
        value = float(Decimal(repr(number)).scaleb(units[unit]))
        low, high, quoted = None, None, ""
        if "low" in table or "high" in table:
            ends = {key: self.number(table, name, key) for key in ("low", "high")}
            if not ends["low"] <= number <= ends["high"]:
                raise self.fail(
                    f"is {number:g}, outside of its range of {ends['low']:g} to {ends['high']:g}",
                    name,
                    "value",
                )
            low, high = (float(Decimal(repr(n)).scaleb(units[unit])) for n in ends.values())
            quoted = f"{ends['low']:g} to {ends['high']:g} {unit}"
        return Price(
            value=value,
            quoted=f"{number:g} {unit}",
            low=low,
            high=high,
            range_quoted=quoted,
            **texts,
        )

    def number(self, values: dict[str, Any], table: str, key: str) -> float:
        if key not in values:
            raise self.fail("is missing; give both ends of the range, or none", table, key)
        value = values[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(f"is {value!r}; give a number", table, key)
        number = float(value)
        if not math.isfinite(number) or number < 0.0:
            raise self.fail(f"is {number}; give a finite number above 0", table, key)
        if number == 0.0:
            raise self.fail(
                "is 0; write 'unknown = true' if there is no figure, or 'included_in' if another "
                "price contains it",
                table,
                key,
            )
        return number

    def resolved(self, name: str, price: Price, prices: dict[str, Price]) -> Price:
        """Follow `borrowed_from` and check `included_in`."""
        for key in ("borrowed_from", "included_in"):
            target = getattr(price, key)
            if target is None:
                continue
            giver = prices.get(target)
            if giver is None or giver.value is None or target == name:
                raise self.fail(
                    f"is '{target}', which is not another price of this file with a value",
                    name,
                    key,
                )
            if key == "borrowed_from":
                if "static" in (name, target):
                    raise self.fail("a power and an energy cannot stand in", name, key)
                return replace(giver, basis="assumed", borrowed_from=target, note=price.note)
        return price
