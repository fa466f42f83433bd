"""Machines of notebook 85: processes that share weights and seeds, and exchange numbers over TCP.

`exchange` starts M tasks on any `concurrent.futures.Executor` that runs them side by side (Dask's
as well) and a relay in this process, which listens on the loopback interface alone. In every round
each machine sends one message, k symbols packed into bytes (`one_byte_codes`) or a gradient of
float32, and gets back what all of them sent, in the order of the machines; of gradients their mean.

A machine is lost by killing its process in the middle, before it gets the messages of that round.
The executor starts its task again elsewhere, as Dask's scheduler does; it knows the start alone,
gets the log of all messages, replays it and goes on. Nobody sends weights.

What is counted are the bytes of messages at the relay's sockets, without the greeting and without
the headers of TCP and IP (at least 40 bytes a packet, whatever it carries). It needs numpy alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import socket
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rclib.experiments.finetuning.one_byte_codes import code_of
from rclib.experiments.finetuning.one_byte_rounds import (
    Plan,
    batches,
    directions,
    mean_gradient,
    measured,
    step,
)

__all__ = ["Exchange", "Machine", "exchange", "machine_run", "mean_of"]

Array = np.ndarray[Any, np.dtype[Any]]
WAIT = 60.0  # seconds without a message after which everybody gives up
TRIES = 3  # connections of one machine
HELLO = struct.Struct("<16sHI")  # token, machine, process
HEAD = struct.Struct("<I")  # number of rounds in the log that follows


@dataclass(frozen=True, eq=False)
class Machine:
    """What one machine has: its number, the plan, the common start (d,) and its own images."""

    number: int
    plan: Plan
    start: Array
    x: Array
    y: Array
    gradients: bool = False  # sends gradients by backpropagation in place of numbers

    def message(self, t: int, theta: Array, chosen: Array) -> bytes:
        """What it sends in round t, computed on its batches, places `chosen` (k, batch)."""
        x, y = self.x[chosen], self.y[chosen]
        if self.gradients:
            return mean_gradient(theta, x, y).tobytes()
        code, z = code_of(self.plan.code), directions(self.plan, t, self.number, len(theta))
        return code.packed(code.symbols(measured(self.plan, theta, z, x, y)))

    def update(self, t: int, theta: Array, message: bytes) -> None:
        """θ after round t, in place, from what the relay sent."""
        if self.gradients:
            theta -= np.float32(self.plan.rate) * np.frombuffer(message, np.float32)
            return
        step(self.plan, t, theta, self.numbers(message))

    def numbers(self, message: bytes) -> Array:
        """What a message from the relay says, (N,) float64."""
        code, k = code_of(self.plan.code), self.plan.samples
        size = code.length(k)
        each = [code.unpacked(message[i : i + size], k) for i in range(0, len(message), size)]
        return code.values(np.concatenate(each))

    def sizes(self) -> tuple[int, int]:
        """Bytes of a message to the relay, and of one from it."""
        if self.gradients:
            return 4 * len(self.start), 4 * len(self.start)
        size = code_of(self.plan.code).length(self.plan.samples)
        return size, size * self.plan.machines


def _receive(line: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = line.recv(min(count - len(parts), 1 << 16))
        if not part:
            raise ConnectionError("the other side has closed the line")
        parts += part
    return bytes(parts)


def machine_run(address: tuple[str, int], token: bytes, own: Machine) -> tuple[Array, int]:
    """Take part until the last round, with a new line where one breaks; returns the final weights
    and the number of rounds that were replayed from the log when it came (back).

    Raises OSError if there is no relay at the address, or it falls silent.
    """
    for last in [False] * (TRIES - 1) + [True]:
        try:
            with socket.create_connection(address, timeout=WAIT) as line:
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line.sendall(HELLO.pack(token, own.number, os.getpid()))
                return _take_part(line, own)
        except OSError:
            if last:
                raise
    raise OSError("no try was left")


def _take_part(line: socket.socket, own: Machine) -> tuple[Array, int]:
    theta, (_, down) = own.start.copy(), own.sizes()
    chosen = batches(own.plan, own.number, len(own.y))
    (joined,) = HEAD.unpack(_receive(line, HEAD.size))
    for t in range(joined):
        own.update(t, theta, _receive(line, down))
    for t in range(joined, own.plan.rounds):
        line.sendall(own.message(t, theta, chosen[t]))
        own.update(t, theta, _receive(line, down))
    return theta, joined


@dataclass
class _Relay:
    """Collects one message a machine and round and sends all of them to all."""

    first: Machine  # any of them, for the sizes
    lost: tuple[int, int] | None  # machine, and the round in which it is lost
    kill: bool
    token: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    log: list[bytes] = field(default_factory=list)
    lines: dict[int, socket.socket] = field(default_factory=dict)
    process: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, bytearray] = field(default_factory=dict)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        count = self.first.plan.machines
        self.up, self.down, self.caught = (np.zeros(count, np.int64) for _ in range(3))
        self.door = socket.create_server(("127.0.0.1", 0), backlog=count)
        self.stop = threading.Event()

    def serve(self) -> None:
        """Until all rounds are over or `stop` is set; the error, if there was one, is kept."""
        with selectors.DefaultSelector() as found, self.door:
            found.register(self.door, selectors.EVENT_READ, -1)
            try:
                while len(self.log) < self.first.plan.rounds and not self.stop.is_set():
                    for key, _ in found.select(timeout=0.1):
                        if key.data < 0:
                            self._greet(found)
                        else:
                            self._take(found, key.data)
            except BaseException as error:
                self.error = error
            for line in self.lines.values():
                line.close()

    def _greet(self, found: selectors.BaseSelector) -> None:
        line, _ = self.door.accept()
        line.settimeout(WAIT)
        with contextlib.suppress(OSError):
            token, number, process = HELLO.unpack(_receive(line, HELLO.size))
            if secrets.compare_digest(token, self.token) and number < self.first.plan.machines:
                self._drop(found, number)
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line.sendall(HEAD.pack(len(self.log)) + b"".join(self.log))
                self.caught[number] += sum(map(len, self.log))
                self.lines[number], self.process[number] = line, process
                self.waiting[number] = bytearray()
                found.register(line, selectors.EVENT_READ, number)
                return
        line.close()

    def _drop(self, found: selectors.BaseSelector, number: int) -> None:
        line = self.lines.pop(number, None)
        if line is not None:
            found.unregister(line)
            line.close()
        self.waiting.pop(number, None)

    def _take(self, found: selectors.BaseSelector, number: int) -> None:
        size, _ = self.first.sizes()
        missing = size - len(self.waiting[number])
        try:
            part = self.lines[number].recv(max(missing, 1))
        except OSError:
            part = b""
        if not part or missing == 0:  # gone, or speaks out of turn
            self._drop(found, number)
            return
        self.waiting[number] += part
        ready = [len(w) == size for w in self.waiting.values()]
        if len(ready) == self.first.plan.machines and all(ready):
            self._pass_on(found)

    def _pass_on(self, found: selectors.BaseSelector) -> None:
        order = range(self.first.plan.machines)
        messages = [bytes(self.waiting[m]) for m in order]
        self.up += [len(message) for message in messages]
        together = b"".join(messages)
        if self.first.gradients:
            table = np.frombuffer(together, np.float32).reshape(len(messages), -1)
            together = mean_of(list(table)).tobytes()
        self.log.append(together)
        if self.lost is not None and self.lost[1] == len(self.log) - 1:
            self._lose(found, self.lost[0])
        for m in list(self.lines):
            self.waiting[m] = bytearray()
            with contextlib.suppress(OSError):  # it will come back, or all give up
                self.lines[m].sendall(together)
                self.down[m] += len(together)

    def _lose(self, found: selectors.BaseSelector, number: int) -> None:
        if self.kill:
            os.kill(self.process[number], signal.SIGKILL)
        self._drop(found, number)


def mean_of(gradients: Sequence[Array]) -> Array:
    """One after the other, so that the bits do not depend on how many there are."""
    total = gradients[0].copy()
    for one in gradients[1:]:
        total += one
    found: Array = total / np.float32(len(gradients))
    return found


@dataclass(frozen=True, eq=False)
class Exchange:
    """ends (M, d): final weights of every machine. joined (M,): rounds that it had replayed when it
    last came. up, down (M,): bytes of its messages to and from the relay; caught (M,): of the log
    that it got when it came back. log: what the relay sent in every round.
    """

    ends: Array
    joined: Array
    up: Array
    down: Array
    caught: Array
    log: list[bytes]


def exchange(
    executor: Executor, machines: Sequence[Machine], *, lost: tuple[int, int] | None = None,
    kill: bool = False,
) -> Exchange:  # fmt: skip
    """All rounds of the machines, one task each; the executor must run them side by side.

    lost : a machine, and the round in which it is lost: its process is killed (`kill`), or the line
    is cut and it forgets its weights, for executors of threads. Raises what a task raised; one that
    hears nothing for a minute raises TimeoutError.
    """
    relay = _Relay(machines[0], lost, kill)
    address = ("127.0.0.1", relay.door.getsockname()[1])
    thread = threading.Thread(target=relay.serve, daemon=True)
    thread.start()
    try:
        tasks = [executor.submit(machine_run, address, relay.token, own) for own in machines]
        for task in tasks:
            task.add_done_callback(lambda one: relay.stop.set() if _failed(one) else None)
        found = _results(tasks)
    finally:
        relay.stop.set()
        thread.join()
    if relay.error is not None:
        raise relay.error
    ends, joined = zip(*found, strict=True)
    return Exchange(np.stack(ends), np.array(joined), relay.up, relay.down, relay.caught, relay.log)


def _failed(task: Future[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def _results(tasks: Sequence[Future[Any]]) -> list[Any]:
    """What all tasks return; of their errors the first that is not a lost line."""
    wait(tasks)
    failed = [task for task in tasks if _failed(task)]
    failed.sort(key=lambda one: not one.cancelled() and isinstance(one.exception(), OSError))
    return [task.result() for task in [*failed, *tasks]]
