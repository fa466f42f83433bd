"""A pickle read as what it is, a program, by an interpreter that builds descriptions alone.

Every opcode is looked at in turn; there are only those that a mapping of tensors needs. Nothing
is imported, called or hashed on the file's behalf (`rclib.checkpoints.pickle_values`), texts and
bytes longer than a line stay in the file, and what is built is counted: memory and time are at
most in proportion to the file, and below fixed bounds.

Source of the opcodes: the documentation in Python's `pickletools`.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable
from typing import Any

from rclib.checkpoints import pickle_values as values
from rclib.checkpoints.pickle_values import (
    Array,
    Data,
    Foreign,
    Inline,
    Instance,
    Named,
    Other,
    PickledTensor,
    Refused,
    Storage,
)

__all__ = ["read_pickle"]

# A checkpoint of 100,000 tensors with an optimizer of two moments has some 20 million opcodes.
MAX_OPCODES = 50_000_000
# Bytes that what is built may take, in a rough count that is rather too high.
MAX_MEMORY = 600_000_000
CONTAINER, VALUE, ENTRY = 120, 40, 200
LINE = 256  # texts and bytes up to which they are taken out of the file
MAX_NAME = 1000


def read_pickle(
    content: memoryview, start: int = 0, storages: dict[str, Storage] | None = None
) -> tuple[Any, int]:
    """The value of the pickle at `start` and the place behind it.

    storages : takes up all that the pickle refers to, by key. Raises Refused (one line) for what
    is no pickle, asks for code, or is too large.
    """
    program = _Program(content, start, {} if storages is None else storages)
    collecting = gc.isenabled()
    gc.disable()  # millions of new values would be looked through again and again
    try:
        return program.run()
    finally:
        if collecting:
            gc.enable()
        program.opcodes.clear()  # they refer to the program, which would keep the content open


class _Program:
    """One run of one pickle."""

    def __init__(self, content: memoryview, start: int, storages: dict[str, Storage]) -> None:
        self.content, self.at, self.storages = content, start, storages
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.memory = 0
        self.opcodes = self._opcodes()

    def run(self) -> tuple[Any, int]:
        """Interpret opcodes until the last."""
        content, opcodes = self.content, self.opcodes
        try:
            for _ in range(MAX_OPCODES):
                code = content[self.at]
                self.at += 1
                if code == 0x2E:  # STOP
                    if self.marks or len(self.stack) != 1:
                        raise Refused("it ends in the middle of a value")
                    return self.stack[0], self.at
                step = opcodes.get(code)
                if step is None:
                    raise Refused(f"opcode {bytes([code])!r} at byte {self.at - 1}")
                step()
                if self.memory > MAX_MEMORY:
                    raise Refused(f"what it builds takes more than {MAX_MEMORY // 10**6} MB")
        except IndexError:  # the end of the content, or of the stack
            raise Refused(f"it ends too early, at byte {self.at}") from None
        except (struct.error, KeyError, UnicodeDecodeError, AttributeError, TypeError) as error:
            raise Refused(f"byte {self.at}: {type(error).__name__}") from None
        raise Refused(f"it has more than {MAX_OPCODES} opcodes")

    # reading

    def take(self, count: int) -> memoryview:
        start = self.at
        if count > len(self.content) - start:
            raise IndexError
        self.at = start + count
        return self.content[start : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        text = bytes(self.content[self.at : self.at + MAX_NAME])
        end = text.find(b"\n")
        if end < 0:
            raise Refused(f"a name without an end at byte {self.at}")
        self.at += end + 1
        return text[:end].decode("utf-8")

    # pushing

    def push(self, value: Any, cost: int = VALUE) -> None:
        self.stack.append(value)
        self.memory += cost

    def text(self, length: int) -> None:
        start = self.at
        raw = self.take(length)
        if length > LINE:
            self.push(Data(start, self.at), CONTAINER)
        else:
            self.push(str(raw, "utf-8", "surrogatepass"), 80 + 4 * length)

    def data(self, length: int) -> None:
        start = self.at
        raw = self.take(length)
        if length > LINE:
            self.push(Data(start, self.at), CONTAINER)
        else:
            found = Inline(raw)
            found.start = start
            self.push(found, CONTAINER + length)

    def long(self, length: int) -> None:
        if length > LINE:
            raise Refused(f"a whole number of {length} bytes")
        self.push(int.from_bytes(self.take(length), "little", signed=True), VALUE + length)

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []
        self.memory += CONTAINER

    def popped(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]
        self.memory += CONTAINER

    # building

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Other):  # a set or deque: what is in it is of no use
            raise Refused("an entry for something that is no list")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, (dict, Other)):
            raise Refused("an entry for something that is no mapping")
        self.memory += ENTRY // 2 * len(items)
        if isinstance(target, dict):
            for said, value in zip(items[::2], items[1::2], strict=True):
                key = values.key_of(said)
                # Nothing that writes pickles does it; who reads last wins, who reads first loses.
                if isinstance(value, (PickledTensor, Array)) and key in target:
                    raise Refused(f"tensor {str(key)[:60]!r} is there twice")
                target[key] = value

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Array):
            values.fill(target, state)
        elif isinstance(target, Instance):
            if target.kind == "numpy.dtype":
                if not isinstance(state, tuple) or len(state) < 2:
                    raise Refused("a numpy.dtype without its order of bytes")
                state = (target.state, state[1])
            target.state = state
        elif not isinstance(target, (dict, Other)):  # those of a dict are no entries of it
            raise Refused(f"attributes for a {type(target).__name__}")

    def call(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        # What is made from a list copies it, so it counts as often as it is made.
        copied = sum(len(a) for a in args[:2] if isinstance(a, list)) if args else 0
        self.push(values.called(function, args), CONTAINER + 2 * LINE + ENTRY * copied)

    def new(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        self.push(values.made(cls, args), CONTAINER + 2 * LINE)

    def new_with_keywords(self) -> None:
        if self.stack.pop() != {}:
            raise Refused("an object made with keywords")
        self.new()

    def named(self, module: str, name: str) -> None:
        self.push(values.known(module, name), CONTAINER)

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("a global without a name")
        self.named(module, name)

    def persistent(self) -> None:
        """Storages: ("storage", type, key, device, entries), of old files with a view of it."""
        said = self.stack.pop()
        if not isinstance(said, tuple) or len(said) < 5:
            raise Refused("a reference that is no storage")
        kind, cls, key, _, count = said[:5]
        if kind in ("module", b"module"):
            raise Foreign(cls.name if isinstance(cls, Named) else "a class of its own")
        if kind not in ("storage", b"storage") or not isinstance(cls, Named):
            raise Refused("a reference that is no storage")
        name = cls.name.rpartition(".")[2]
        key = key.decode("ascii") if isinstance(key, bytes) else key
        if name not in values.STORAGES or not isinstance(key, str) or type(count) is not int:
            raise Refused("a storage without a type, name or size")
        first = 0
        if len(said) > 5 and said[5] is not None:
            view = said[5]
            if not isinstance(view, tuple) or len(view) != 3 or type(view[1]) is not int:
                raise Refused("a view of a storage without its place")
            first = view[1]
        storage = Storage(key, values.STORAGES[name], count, first)
        known = self.storages.setdefault(key, storage)
        if known.dtype != storage.dtype or known.count != storage.count:
            raise Refused(f"storage {key[:60]!r} is said to be of two types or sizes")
        self.push(storage, CONTAINER)

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]
        self.memory += VALUE

    def _opcodes(self) -> dict[int, Callable[[], object]]:
        number, push = self.number, self.push
        steps: dict[bytes, Callable[[], object]] = {
            b"\x80": lambda: self.take(1),  # PROTO
            b"\x95": lambda: self.take(8),  # FRAME
            b"N": lambda: push(None),
            b"\x88": lambda: push(True),
            b"\x89": lambda: push(False),
            b"J": lambda: push(number("<i")),
            b"K": lambda: push(number("<B")),
            b"M": lambda: push(number("<H")),
            b"\x8a": lambda: self.long(number("<B")),
            b"\x8b": lambda: self.long(number("<I")),
            b"G": lambda: push(number(">d")),
            b"X": lambda: self.text(number("<I")),
            b"\x8c": lambda: self.text(number("<B")),
            b"\x8d": lambda: self.text(number("<Q")),
            b"U": lambda: self.data(number("<B")),
            b"T": lambda: self.data(number("<I")),
            b"C": lambda: self.data(number("<B")),
            b"B": lambda: self.data(number("<I")),
            b"\x8e": lambda: self.data(number("<Q")),
            b"\x96": lambda: self.data(number("<Q")),
            b"}": lambda: push({}, CONTAINER),
            b"]": lambda: push([], CONTAINER),
            b")": lambda: push(()),
            b"\x8f": lambda: push(Other("set"), CONTAINER),
            b"(": self.mark,
            b"t": lambda: push(tuple(self.popped()), CONTAINER),
            b"\x85": lambda: self.tuple_of(1),
            b"\x86": lambda: self.tuple_of(2),
            b"\x87": lambda: self.tuple_of(3),
            b"a": lambda: self.append([self.stack.pop()]),
            b"e": lambda: self.append(self.popped()),
            b"\x90": lambda: self.append(self.popped()),  # ADDITEMS
            b"\x91": lambda: (self.popped(), push(Other("frozenset"), CONTAINER)),
            b"s": lambda: self.set_items([self.stack.pop(-2), self.stack.pop()]),
            b"u": lambda: self.set_items(self.popped()),
            b"c": lambda: self.named(self.line(), self.line()),
            b"\x93": self.stack_global,
            b"R": self.call,
            b"\x81": self.new,
            b"\x92": self.new_with_keywords,
            b"b": self.build,
            b"Q": self.persistent,
            b"q": lambda: self.remember(number("<B")),
            b"r": lambda: self.remember(number("<I")),
            b"\x94": lambda: self.remember(len(self.memo)),
            b"h": lambda: push(self.memo[number("<B")], 8),
            b"j": lambda: push(self.memo[number("<I")], 8),
            b"0": lambda: self.stack.pop(),
        }
        return {code[0]: step for code, step in steps.items()}
