"""A language model under a constraint as a machine of finitely many states, solved exactly.

A state q holds what the model's next-token law and the checker need: the law is `laws[law_of[q]]`,
token y leads to the state `after[q, y]`, -1 where it is forbidden for good. Of a prefix the checker
asks whether it can still be completed in the tokens that are left: y is accepted at step t if
distance(after[q, y]) <= T - t - 1, where `distance` counts tokens to the nearest accepted end.

    target         P(x_1 ... x_T) Π 1(accepted), normalised, over strings
    masked         Π p(x_t) 1(accepted) / Z_t, what drawing each token under the constraint gives

With h_T = 1 at an end and h_t(q) = Σ_y p(y | q) h_{t+1}(after[q, y]), the target moves from q to y
with p(y | q) h_{t+1}(after) / h_t(q): a Doob transform of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rclib.stats.rejection import mean_checks

__all__ = [
    "Machine",
    "Solved",
    "brackets",
    "chain",
    "completion",
    "distance",
    "ending",
    "solve",
    "trie",
]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Machine:
    """laws (K, V), law_of (Q,), after (Q, V), distance (Q,) : see above; unreachable ends have a
    distance beyond `steps` = T. start : state. end : the state in which a string is over, or -1 if
    all strings have T tokens."""

    laws: Floats
    law_of: Ints
    after: Ints
    distance: Ints
    steps: int
    start: int = 0
    end: int = -1

    def accepted(self, states: Ints, t: int) -> np.ndarray:
        """(n, V) bool: tokens that the checker accepts at step t = 0 ... T - 1."""
        after = self.after[states]
        return (after >= 0) & (self.distance[after] <= self.steps - t - 1)

    def rows(self, states: Ints) -> Floats:
        """(n, V) : the model's laws."""
        return np.asarray(self.laws[self.law_of[states]])

    @cached_property
    def h(self) -> Floats:
        """(T + 1, Q) : probability that the model alone, from q at step t, ends accepted."""
        every = np.arange(len(self.after))
        found = np.zeros((self.steps + 1, len(every)))
        found[-1] = self.distance == 0
        for t in reversed(range(self.steps)):
            value = np.where(self.accepted(every, t), found[t + 1][self.after], 0.0)
            found[t] = (self.rows(every) * value).sum(1)
            if self.end >= 0:
                found[t, self.end] = 1.0
        return found

    @property
    def mass(self) -> float:
        """Probability that a string of the model is accepted."""
        return float(self.h[0, self.start])


@dataclass(frozen=True, eq=False)
class Solved:
    """marginals (T, V + 1) : law of the token at every step, the last column for strings that are
    over. tokens : mean number of tokens of a string. checks : {method: mean checks a token (until
    the first accepted one, in all)}. surprise : mean of -log Z_t over the tokens. log_p : mean log
    probability of a string under the model."""

    marginals: Floats
    tokens: float
    checks: dict[str, tuple[float, float]]
    surprise: float
    log_p: float


def solve(machine: Machine, which: str, methods: Sequence[str] = ()) -> Solved:
    """The target's or the masked law's marginals by a forward recursion, and what draws cost along
    it. which : "target" or "masked"."""
    T, V = machine.steps, machine.laws.shape[1]
    alpha = np.zeros(len(machine.after))
    alpha[machine.start] = 1.0
    marginals, tokens, surprise, log_p = np.zeros((T, V + 1)), 0.0, 0.0, 0.0
    paid = {method: np.zeros(2) for method in methods}
    for t in range(T):
        live = np.flatnonzero(alpha > 0)
        if machine.end >= 0:
            marginals[t, V] = alpha[machine.end]
            live = live[live != machine.end]
        law, ok = machine.rows(live), machine.accepted(live, t)
        weight = np.where(ok, law, 0.0)
        z = weight.sum(1)
        if which == "target":
            weight = weight * np.where(ok, machine.h[t + 1][machine.after[live]], 0.0)
        total = weight.sum(1)
        alpha_live = np.where(total > 0, alpha[live], 0.0)  # prefixes that have no continuation
        tokens += alpha_live.sum()
        surprise += float(alpha_live @ -np.log(np.where(z > 0, z, 1.0)))
        for method in methods:
            there = z > 0
            cost = np.array(mean_checks(law[there], ok[there], method))
            paid[method] += cost @ alpha_live[there]
        joint = weight * (alpha_live / np.where(total > 0, total, 1.0))[:, None]
        marginals[t, :V] = joint.sum(0)
        log_p += float((joint * np.log(np.where(joint > 0, law, 1.0))).sum())
        over = alpha[machine.end] if machine.end >= 0 else 0.0
        alpha = np.zeros(len(alpha))
        np.add.at(alpha, machine.after[live][ok], joint[ok])
        if machine.end >= 0:
            alpha[machine.end] += over
    checks = {m: (float(v[0] / tokens), float(v[1] / tokens)) for m, v in paid.items()}
    return Solved(marginals, float(tokens), checks, surprise / tokens, log_p)


def distance(one: Any, other: Any) -> Floats:
    """Total variation between laws along the last axis."""
    return np.asarray(np.abs(np.asarray(one) - np.asarray(other)).sum(-1) / 2)


def chain(
    start_law: Floats, P: Floats, allowed: np.ndarray, steps: int, *, first: Any = True
) -> Machine:
    """A Markov chain on V tokens of which some transitions are allowed.

    start_law (V,), P (V, V) from row to column, allowed (V, V) bool, first : (V,) bool or one for
    all, of the first token.
    """
    V = len(P)
    laws = np.concatenate([P, start_law[None]])
    every = np.tile(np.arange(V), (V + 1, 1))
    after = np.where(np.concatenate([allowed, np.broadcast_to(first, (1, V))]), every, -1)
    return Machine(laws, np.arange(V + 1), after, np.zeros(V + 1, dtype=int), steps, start=V)


def _with_model(laws: Floats, moves: Ints, end: int, steps: int, first: int) -> Machine:
    """Product of a bigram model (laws (V, V) by the last token) with an automaton: moves (S, V),
    -1 for what is forbidden; strings are over in the state `end`. first : the token before."""
    S, V = moves.shape
    last, state = np.divmod(np.arange(V * S), S)
    after = np.where(moves[state] >= 0, np.arange(V) * S + moves[state], -1)
    # All copies of the end, one a token, are one state.
    over = V * S
    after = np.where((after >= 0) & (after % S == end), over, after)
    after = np.concatenate([after, np.full((1, V), -1)])
    law_of = np.append(last, first)
    found = Machine(laws, law_of, after, np.zeros(over + 1, dtype=int), steps, first * S, over)
    return Machine(laws, law_of, after, _distances(found), steps, first * S, over)


def _distances(machine: Machine) -> Ints:
    """Tokens to the end, T + 1 where it cannot be reached in T."""
    far = machine.steps + 1
    found = np.full(len(machine.after), far)
    found[machine.end] = 0
    for _ in range(machine.steps):
        ahead = np.where(machine.after >= 0, found[machine.after], far).min(1) + 1
        found = np.minimum(found, np.minimum(ahead, far))
    return found


def brackets(
    laws: Floats, pairs: Sequence[tuple[int, int]], newline: int, steps: int, *, depth: int = 2
) -> Machine:
    """Lines of at most T tokens under a bigram model, each bracket matched, nested at most `depth`
    deep. pairs : (opening, closing) tokens."""
    stacks: list[tuple[int, ...]] = [()]
    for stack in stacks:
        if len(stack) < depth:
            stacks += [(*stack, k) for k in range(len(pairs))]
    number = {stack: n for n, stack in enumerate(stacks)}
    end = len(stacks)
    moves = np.tile(np.arange(end + 1)[:, None], (1, laws.shape[1]))
    for stack, n in number.items():
        moves[n, newline] = end if not stack else -1
        for k, (opening, closing) in enumerate(pairs):
            moves[n, opening] = number.get((*stack, k), -1)
            moves[n, closing] = number[stack[:-1]] if stack[-1:] == (k,) else -1
    return _with_model(laws, moves, end, steps, newline)


def ending(laws: Floats, word: Sequence[int] | Ints, newline: int, steps: int) -> Machine:
    """Lines of at most T tokens under a bigram model that end with `word`.

    The states are how many of the word's tokens the line ends with (Knuth, Morris and Pratt).
    """
    word = [int(y) for y in word]
    n, V = len(word), laws.shape[1]
    moves = np.zeros((n + 2, V), dtype=int)
    for k in range(n + 1):
        for y in set(word):
            text = [*word[:k], y]
            moves[k, y] = max(
                j for j in range(min(n, k + 1) + 1) if text[len(text) - j :] == word[:j]
            )
        moves[k, newline] = n + 1 if k == n else -1
    return _with_model(laws, moves, n + 1, steps, newline)


def trie(words: Sequence[Sequence[int]], ends: np.ndarray) -> tuple[Ints, list[tuple[int, int]]]:
    """(after (Q + 1, V), places of the Q prefixes) of words followed by an end.

    ends (V,) bool : tokens that may follow a word; the last state is the end. places : (word,
    length) of one word that begins with the prefix.
    """
    V = len(ends)
    number: dict[tuple[int, ...], int] = {(): 0}
    places = [(0, 0)]
    for w, word in enumerate(words):
        for n in range(1, len(word) + 1):
            if tuple(word[:n]) not in number:
                number[tuple(word[:n])] = len(places)
                places.append((w, n))
    over = len(places)
    after = np.full((over + 1, V), -1)
    for prefix, n in number.items():
        if prefix:
            after[number[prefix[:-1]], prefix[-1]] = n
    for word in words:
        own = after[number[tuple(word)]]
        own[ends & (own < 0)] = over
    return after, places


def completion(rows: Floats, after: Ints, steps: int) -> Machine:
    """A model's completions of one prompt by a word of a `trie`: rows (Q, V) are its laws after
    every prefix."""
    Q = len(rows)
    law_of = np.append(np.arange(Q), 0)
    found = Machine(rows, law_of, after, np.zeros(Q + 1, dtype=int), steps, 0, Q)
    return Machine(rows, law_of, after, _distances(found), steps, 0, Q)
