"""Networks whose matrices are mixtures of templates, and how two halves become one (MixtureGrowth).

A matrix is W = Σ_k α_k T_k. Two halves of width h/2, each with templates and coefficients of its
own, stand on the diagonal of a network of width h; the blocks beside them are new mixtures of the
same templates (arXiv 2311.04251; the authors' code, chaudatascience/mixturegrowth, was read):

    W2 = [[M(α0, T0), M(α2, T0)],       W1 = [[M(α0, T0)],     W3 = [M(α0, T0), M(α1, T1)]
          [M(α3, T1), M(α1, T1)]]             [M(α1, T1)]]

rows are outputs. Three matrices, ReLU, a shift a neuron; with gains ("g1", "g2") every hidden layer
is normalised over the batch before gain and shift, also when it is tested.

Tensors of a half: "T1", "T2", "T3" (K, out, in), "a1" ... (K,), "b1" ... (out,), "g1", "g2" (h/2,).
Of a grown network: "T1" ... (2, K, out, in), "a1", "a3" (2, K), "a2" (4, K), b and g of full width.
Of a plain one: "W1" ... (out, in), b and g.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rclib.checks.arguments import choice, count
from rclib.rowcolumn.axes import mlp_axes
from rclib.rowcolumn.transfer import transfer

__all__ = [
    "COEFFICIENTS",
    "coefficients",
    "construct",
    "forward_grown",
    "forward_half",
    "forward_plain",
    "grow",
    "mixed",
    "new_coefficients",
    "one_half",
    "permuted",
    "plain",
    "sampled",
    "scratch",
    "untied",
]

COEFFICIENTS = ("orthogonal", "copied", "copied exactly", "zero", "random", "kept")
EPS = 1e-5  # of the normalisation, as torch's
State = dict[str, Tensor]


def mixed(a: Tensor, templates: Tensor) -> Tensor:
    """Σ_k a_k T_k of a (K,) and templates (K, out, in), term by term, so its bits are its own."""
    total = a[0] * templates[0]
    for k in range(1, len(a)):
        total = total + a[k] * templates[k]
    return total


def coefficients(k: int, *, members: int, generator: torch.Generator) -> Tensor:
    """Coefficients at construction, (members, K): rows of a random orthogonal matrix, as in the
    code. With fewer templates than members its columns are orthonormal and the rows are not."""
    start: Tensor = torch.nn.init.orthogonal_(
        torch.empty(count("members", members), count("k", k)), generator=generator
    )
    return start


def new_coefficients(
    kind: str, a: Tensor, *, generator: torch.Generator, noise: float = 1.0
) -> Tensor:
    """α of the two new blocks, (2, K), from a (4, K): trained α0 and α1, α2 and α3 of construction.

    kind : "orthogonal", α3 is the last right-singular vector of α0, α1, α2, of length `noise`, and
    α2 stays, as in the code; "copied", α0 and α1, each plus the same vector of uniform numbers of
    length `noise`; "copied exactly", without it; "zero"; "random", uniform in [0, noise); "kept".
    Raises ValueError for another kind.
    """
    drawn = torch.rand(2, a.shape[1], generator=generator)
    match choice("kind", kind, COEFFICIENTS):
        case "orthogonal":
            last = torch.linalg.svd(a[:3].double()).Vh[-1].to(a.dtype)
            return torch.stack([a[2], noise * last])
        case "copied":
            added: Tensor = a[:2] + noise * drawn[:1] / drawn[0].norm()
            return added
        case "copied exactly":
            return a[:2].clone()
        case "zero":
            return torch.zeros_like(a[:2])
        case "random":
            return noise * drawn
        case _:
            return a[2:].clone()


def construct(sizes: Sequence[int], k: int, *, norm: bool, seed: int) -> tuple[list[State], Tensor]:
    """Two halves before training, and the coefficients (4, K) of the middle matrix.

    sizes : inputs, full width (even), classes. Templates are Kaiming normal in their own fan-in
    (torch's initialiser, given (K, out, in) as in the authors' code, would take out · in).
    Raises ValueError for an odd width.
    """
    d, h, classes = (count("sizes", size) for size in sizes)
    if h % 2:
        raise ValueError(f"sizes must have an even width, got {h}")
    generator = torch.Generator().manual_seed(seed)
    inner = coefficients(k, members=4, generator=generator)
    outer = [coefficients(k, members=2, generator=generator) for _ in range(2)]
    shapes = [(h // 2, d), (h // 2, h // 2), (classes, h // 2)]
    halves = []
    for m in range(2):
        state: State = {}
        for layer, (out, into) in enumerate(shapes, 1):
            drawn = torch.randn(k, out, into, generator=generator)
            state[f"T{layer}"] = drawn * (2.0 / into) ** 0.5
            state[f"b{layer}"] = torch.zeros(out)
            if norm and layer < len(shapes):
                state[f"g{layer}"] = torch.ones(out)
        state |= {"a1": outer[0][m].clone(), "a2": inner[m].clone(), "a3": outer[1][m].clone()}
        halves.append(state)
    return halves, inner


def grow(halves: Sequence[Mapping[str, Tensor]], new: Tensor, *, halved: bool = True) -> State:
    """The grown, still tied network. new : (2, K), coefficients of the blocks beside the diagonal.

    halved : divide the classifier by two, so that with blocks of zeros the logits are the mean of
    the halves'; the authors do not.
    """
    out: State = {name: torch.stack([half[name] for half in halves]) for name in ("T1", "T2", "T3")}
    out |= {name: torch.stack([half[name] for half in halves]) for name in ("a1", "a3")}
    out["a2"] = torch.cat([torch.stack([half["a2"] for half in halves]), new])
    for name in sorted(halves[0].keys() - out.keys()):
        out[name] = torch.cat([half[name] for half in halves])
    scale = 0.5 if halved else 1.0
    out["a3"] = scale * out["a3"]
    out["b3"] = scale * (halves[0]["b3"] + halves[1]["b3"])
    return out


def plain(tied: Mapping[str, Tensor]) -> State:
    """The matrices of a half or of a grown network, with its shifts and gains."""
    out = {name: tensor for name, tensor in tied.items() if name[0] in "bg"}
    t, a = [tied[f"T{layer}"] for layer in (1, 2, 3)], [tied[f"a{layer}"] for layer in (1, 2, 3)]
    if t[0].ndim == 3:
        return out | {f"W{layer}": mixed(a[layer - 1], t[layer - 1]) for layer in (1, 2, 3)}
    own = [[mixed(a[layer][m], t[layer][m]) for m in range(2)] for layer in range(3)]
    beside = [mixed(a[1][2 + m], t[1][m]) for m in range(2)]
    out["W1"] = torch.cat(own[0])
    out["W2"] = torch.cat(
        [torch.cat([own[1][0], beside[0]], 1), torch.cat([beside[1], own[1][1]], 1)]
    )
    out["W3"] = torch.cat(own[2], 1)
    return out


def forward_plain(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """x (n, d) -> logits (n, classes) of a plain network."""
    for layer in (1, 2):
        x = x @ tensors[f"W{layer}"].T
        if f"g{layer}" in tensors:
            x = x - x.mean(0)
            x = x / (x.square().mean(0) + EPS).sqrt() * tensors[f"g{layer}"]
        x = torch.relu(x + tensors[f"b{layer}"])
    out: Tensor = x @ tensors["W3"].T + tensors["b3"]
    return out


def forward_half(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """x (n, d) -> logits of a half."""
    return forward_plain(plain(tensors), x)


forward_grown = forward_half  # `plain` tells them by their axes


def permuted(half: Mapping[str, Tensor], *, generator: torch.Generator) -> State:
    """A half with the entries of every template in a random order."""
    out = dict(half)
    for name in ("T1", "T2", "T3"):
        rows = [t.flatten()[torch.randperm(t.numel(), generator=generator)] for t in half[name]]
        out[name] = torch.stack(rows).view_as(half[name])
    return out


def scratch(sizes: Sequence[int], *, norm: bool, seed: int) -> State:
    """A plain network before training, Kaiming normal."""
    d, h, classes = sizes
    generator = torch.Generator().manual_seed(seed)
    out: State = {}
    for layer, (rows, into) in enumerate([(h, d), (h, h), (classes, h)], 1):
        out[f"W{layer}"] = torch.randn(rows, into, generator=generator) * (2.0 / into) ** 0.5
        out[f"b{layer}"] = torch.zeros(rows)
        if norm and layer < 3:
            out[f"g{layer}"] = torch.ones(rows)
    return out


def untied(halves: Sequence[Mapping[str, Tensor]], start: Mapping[str, Tensor] | None) -> State:
    """A plain network with both halves on the diagonal, classifier halved; beside it zeros, the
    mean of the two networks, or the blocks of `start`."""
    out = plain(grow(halves, torch.zeros(2, len(halves[0]["a2"]))))
    if start is not None:
        n = len(out["W2"]) // 2
        for block in (slice(None, n), slice(n, None)), (slice(n, None), slice(None, n)):
            out["W2"][block] = start["W2"][block]
    return out


def one_half(half: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> State:
    """A plain network that is `start` but for one trained half in its first neurons, as it is."""
    own, out = plain(half), {name: tensor.clone() for name, tensor in start.items()}
    for name, tensor in own.items():
        out[name][tuple(slice(0, size) for size in tensor.shape)] = tensor
    return out


def sampled(half: Mapping[str, Tensor], width: int, *, seed: int) -> State:
    """A plain network by RC sampling, r1 = 0, from one half (paper A, Algorithm 1)."""
    own = plain(half)
    axes = {name.lower() if name[0] == "B" else name: of for name, of in mlp_axes(3).items()}
    axes |= {name: axes[f"b{name[1]}"] for name in own if name[0] == "g"}
    generator = torch.Generator().manual_seed(seed)
    return transfer(own, axes, {"h1": width, "h2": width}, generator=generator)
