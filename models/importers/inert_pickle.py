"""Read a pickle without running it.

A pickle is a program for a small stack machine, and two of its instructions import names and call
them. The interpreter here has the same stack and memo but imports nothing and calls nothing that
the file names: a name becomes a `Name`, a call becomes an `Inert` record of what would have been
called. What may be built instead, such as arrays, the caller says by `Rules`.
"""

from __future__ import annotations

import io
import pickletools
import struct
import warnings
from collections.abc import Callable
from typing import Any

from eventsim.errors import FileFormatError
from eventsim.models.importers.inert_values import (
    Inert,
    MalformedError,
    Name,
    Rules,
    atom,
    runs_commands,
)

MAX_OPCODES = 4_000_000
HIGHEST_PROTOCOL = 5
# Bytes that builders may copy, as a multiple of the pickle's own size: one shared string must not
# become many arrays.
MAX_EXPANSION = 16


def read(data: bytes, where: str, rules: Rules) -> Any:
    """Return what the pickle `data` describes, without running it.

    Parameters
    ----------
    data : bytes
        A pickle of protocol 0 to 5; bytes after its end are ignored.
    where : str
        The file, for error messages.
    rules : Rules
        What it may build.

    Raises
    ------
    FileFormatError
        If the data are not a pickle, are cut off, name something that the rules do not admit, or
        name a command.
    """
    return read_at(data, 0, where, rules)[0]


def read_at(data: bytes, start: int, where: str, rules: Rules) -> tuple[Any, int]:
    """Like `read`, from byte `start`; returns the value and the position after the pickle."""
    machine = _Machine(rules, MAX_EXPANSION * len(data) + 2**20)
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        with warnings.catch_warnings():
            # Python reads a backslash that begins nothing as itself; no pickle is written so.
            warnings.filterwarnings("error", "invalid (octal )?escape", DeprecationWarning)
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
                if count > MAX_OPCODES:
                    raise MalformedError(f"has more than {MAX_OPCODES} instructions")
                machine.execute(opcode.name, argument)
        return machine.result(), stream.tell()
    except _RefusedError as error:
        raise FileFormatError(str(error), where=where) from None
    except (
        ValueError, TypeError, LookupError, OverflowError, DeprecationWarning, struct.error,
    ) as error:  # fmt: skip
        reason = str(error) if isinstance(error, MalformedError) else "is damaged or cut off"
        raise FileFormatError(
            f"holds a pickle that {reason}; save or download the file again", where=where
        ) from error


def names(data: bytes, where: str) -> list[Name]:
    """Return the globals that the pickle `data` names, in order, without running it.

    Raises
    ------
    FileFormatError
        If the data are not a pickle or name a command.
    """
    seen: list[Name] = []

    def note(name: Name) -> bool:
        seen.append(name)
        return True

    read(data, where, Rules({}, note))
    return seen


class _RefusedError(Exception):
    """A name or instruction that the file should not contain."""


_MARK_TAKERS = frozenset(
    """
    LIST TUPLE DICT FROZENSET APPENDS SETITEMS ADDITEMS POP_MARK INST OBJ
    """.split()  # noqa: SIM905
)


class _Machine:
    """Stack, marks and memo of the pickle machine."""

    def __init__(self, rules: Rules, budget: int) -> None:
        self.rules = rules
        self.budget = budget
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.stopped = False

    def execute(self, code: str, argument: Any) -> None:
        if code in _LITERALS:
            self.stack.append(_LITERALS[code]())
        elif code in _PUSHES:
            self.stack.append(argument)
        elif code in _MARK_TAKERS:
            items, self.stack = self.stack, self.marks.pop()
            self.with_items(code, items, argument)
        else:
            handler = getattr(self, f"op_{code.lower()}", None)
            if handler is None:
                raise MalformedError(f"uses the instruction {code}, which no saved agent needs")
            handler(argument)

    def result(self) -> Any:
        if not self.stopped or len(self.stack) != 1 or self.marks:
            raise MalformedError("does not end as a pickle does")
        return self.stack[0]

    def with_items(self, code: str, items: list[Any], argument: Any) -> None:
        if code == "LIST":
            self.stack.append(items)
        elif code == "TUPLE":
            self.stack.append(tuple(items))
        elif code == "DICT":
            self.stack.append({})
            self.set_items(items)
        elif code == "FROZENSET":
            self.stack.append(frozenset(atom(item) for item in items))
        elif code == "APPENDS":
            self.append_items(items)
        elif code == "SETITEMS":
            self.set_items(items)
        elif code == "ADDITEMS":
            self.top(set).update(atom(item) for item in items)
        elif code == "INST":
            self.stack.append(self.call(self.name(argument), tuple(items)))
        elif code == "OBJ":
            self.stack.append(self.call(items[0], tuple(items[1:])))

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise MalformedError(f"treats another object as a {kind.__name__}")
        return self.stack[-1]

    def append_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target = target.items
        if not isinstance(target, list):
            raise MalformedError("appends to what is not a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise MalformedError("gives a key without value")
        target = self.stack[-1]
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, dict):
            target.update((atom(key), value) for key, value in pairs)
        elif isinstance(target, Inert):
            target.items.extend((atom(key), value) for key, value in pairs)
        else:
            raise MalformedError("sets items of what is not a dict")

    def name(self, text: str) -> Name:
        module, _, attribute = text.partition(" ")
        return self.admitted(module, attribute)

    def admitted(self, module: Any, attribute: Any) -> Name:
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise MalformedError("names a global by something other than text")
        name = Name(module, attribute)
        if runs_commands(name):
            raise _RefusedError(
                f"holds a pickle that names '{name}', which could run a command if the "
                "file were unpickled; nothing was run, and the file is refused: do not load it "
                "with other tools either"
            )
        if (module, attribute) not in self.rules.builders and not self.rules.admit(name):
            raise _RefusedError(
                f"holds a pickle that names '{name}', which such a file never needs; "
                "nothing was run, and the file is refused"
            )
        return name

    def call(self, constructor: Any, arguments: Any) -> Any:
        if isinstance(constructor, Name):
            builder = self.rules.builders.get((constructor.module, constructor.attribute))
            if builder is not None:
                if not isinstance(arguments, tuple):
                    raise MalformedError("calls with something other than arguments")
                for value in arguments:
                    self.charge(value)
                return builder(*arguments)
        return Inert(constructor, arguments)

    def charge(self, value: Any) -> None:
        if isinstance(value, str | bytes | bytearray | list | tuple | dict | set):
            self.budget -= len(value)
        if self.budget < 0:
            raise MalformedError("would grow to many times its size")

    # One method an instruction; `argument` is what pickletools read beside it.

    def op_proto(self, argument: int) -> None:
        if argument > HIGHEST_PROTOCOL:
            raise MalformedError(f"has protocol {argument}, newer than {HIGHEST_PROTOCOL}")

    def op_frame(self, argument: int) -> None:
        pass

    def op_readonly_buffer(self, argument: None) -> None:
        pass

    def op_stop(self, argument: None) -> None:
        self.stopped = True

    def op_mark(self, argument: None) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def op_pop(self, argument: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.marks.pop()

    def op_dup(self, argument: None) -> None:
        self.stack.append(self.stack[-1])

    def op_tuple1(self, argument: None) -> None:
        self.collect(1)

    def op_tuple2(self, argument: None) -> None:
        self.collect(2)

    def op_tuple3(self, argument: None) -> None:
        self.collect(3)

    def collect(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise MalformedError("takes more from the stack than there is")
        self.stack[-count:] = [items]

    def op_append(self, argument: None) -> None:
        self.append_items([self.stack.pop()])

    def op_setitem(self, argument: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def op_memoize(self, argument: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_put(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_get(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    op_binget = op_long_binget = op_get

    def op_global(self, argument: str) -> None:
        self.stack.append(self.name(argument))

    def op_stack_global(self, argument: None) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.admitted(module, attribute))

    def op_reduce(self, argument: None) -> None:
        arguments, constructor = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(constructor, arguments))

    op_newobj = op_reduce

    def op_newobj_ex(self, argument: None) -> None:
        keywords, arguments, constructor = (self.stack.pop() for _ in range(3))
        self.stack.append(Inert(constructor, (arguments, keywords)))

    def op_build(self, argument: None) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict):  # the attributes of an OrderedDict carry no items
            if self.rules.set_state is None:
                raise MalformedError("sets the state of an object that has none")
            for part in state if isinstance(state, tuple) else ():
                self.charge(part)
            self.rules.set_state(target, state)

    def op_persid(self, argument: Any) -> None:
        if self.rules.persistent is None:
            raise MalformedError("refers to objects outside the file")
        self.stack.append(self.rules.persistent(argument))

    def op_binpersid(self, argument: None) -> None:
        self.op_persid(self.stack.pop())


_LITERALS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_PUSHES = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()  # noqa: SIM905
)
