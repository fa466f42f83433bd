"""Training a small language model, as ratios of tokens per second within one run.

Compared with
(a) the usual way: a GPT of the same size in plain PyTorch (`nn.TransformerEncoderLayer`,
    pre-norm, GELU, causal mask; learned positions, untied output), the same batches,
    `torch.optim.AdamW` with its defaults; and the same with the fused optimiser;
(b) the machine's limit: the matrix products of each step alone, those of the blocks and the
    output forward, and twice as many backward, same shapes, same number of threads, without
    attention's own products.
Each way makes the same number of steps in turn, round after round; medians over the rounds.
On a GPU all use bfloat16 autocast, and ours torch.compile as in training. On a CPU ours is
measured both ways, compiled where a C++ compiler is installed: there compiling is the caller's
choice, since it takes as long as the setting "first step" says. Run it on an otherwise idle
machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from kept import Kept
from torch import Tensor, nn
from torch.nn import functional

from rclib.data.text import TextData, load_text
from rclib.nets.gpt import GPT
from rclib.training.lm_loop import cpp_compiler, train_lm
from rclib.training.lm_recipe import Recipe

LR = 1e-3


class PlainGPT(nn.Module):
    """The usual decoder-only model from PyTorch's own layers."""

    def __init__(self, width: int, blocks: int, context: int, head_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.position = nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(
            width,
            width // head_size,
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 256)
        mask = nn.Transformer.generate_square_subsequent_mask(context)
        self.register_buffer("mask", mask)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, T, 256)."""
        x = self.embedding(tokens) + self.position.weight
        return self.output(self.norm(self.blocks(x, mask=self.mask, is_causal=True)))


def plain_loop(
    model: PlainGPT,
    optimizer: torch.optim.Optimizer,
    text: TextData,
    batch_size: int,
    device: torch.device,
) -> Callable[[int], None]:
    """Makes so many training steps of the plain model."""
    context = model.position.num_embeddings

    def steps(count: int) -> None:
        for s in range(count):
            windows = text.batch(s, seed=0, batch_size=batch_size, context=context).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(windows[:, :-1])
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def our_loop(
    model: GPT, text: TextData, batch_size: int, *, compiled: bool | None = None
) -> Callable[[int], None]:
    """Makes so many steps by `train_lm`, its set-up included."""

    def steps(count: int) -> None:
        recipe = Recipe(steps=count, lr=LR, batch_size=batch_size)
        train_lm(model, text, recipe, compiled=compiled, progress=False)

    return steps


def products(width: int, blocks: int, tokens: int, device: torch.device) -> Callable[[int], None]:
    """Makes the matrix products of so many steps and nothing else."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * blocks
    shapes.append((width, 256))
    data = []
    for n, m in shapes:
        sizes = ((tokens, n), (n, m), (tokens, m))
        data.append(tuple(torch.randn(*size, device=device, dtype=dtype) for size in sizes))

    def steps(count: int) -> None:
        for _ in range(count):
            for x, w, error in data:
                torch.mm(x, w)
                torch.mm(error, w.t())
                torch.mm(x.t(), error)

    return steps


def seconds(steps: Callable[[int], None], count: int, device: torch.device) -> float:
    """Time of `count` steps."""
    begin = time.perf_counter()
    steps(count)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--head-size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    o = parser.parse_args()
    kept = Kept("gpt", threads=o.threads, keeping=o.keep)
    fresh = tempfile.TemporaryDirectory()  # what was compiled before does not count
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = fresh.name
    torch.set_num_threads(o.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text, tokens = load_text(), o.batch_size * o.context
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{o.threads} threads"
    print(f"torch {torch.__version__}, {where}, {o.blocks} blocks, {tokens} tokens a step")
    for width in o.widths:
        options = {"blocks": o.blocks, "context": o.context, "head_size": o.head_size}
        ours = GPT(width, norm="layer", **options).to(device)
        ways: dict[str, Callable[[int], None]] = {"rclib": our_loop(ours, text, o.batch_size)}
        if device.type == "cpu" and cpp_compiler() is not None:
            again = GPT(width, norm="layer", **options)
            ways["rclib, compiled"] = our_loop(again, text, o.batch_size, compiled=True)
        for name, fused in (("plain PyTorch", False), ("plain, fused AdamW", True)):
            plain = PlainGPT(width, o.blocks, o.context, o.head_size).to(device)
            adam = torch.optim.AdamW(plain.parameters(), lr=LR, fused=fused or None)
            ways[name] = plain_loop(plain, adam, text, o.batch_size, device)
        ways["matrix products alone"] = products(width, o.blocks, tokens, device)
        times: dict[str, list[float]] = {name: [] for name in ways}
        first = {name: [seconds(way, 1, device)] for name, way in ways.items()}
        for way in ways.values():
            seconds(way, 3, device)
        for _ in range(o.rounds):
            for name, way in ways.items():
                times[name].append(seconds(way, o.steps, device))
        base = statistics.median(times["rclib"])
        print(f"width {width}:")
        for name, measured in times.items():
            rate = tokens * o.steps / statistics.median(measured)
            ratio = statistics.median(t / u for t, u in zip(measured, times["rclib"], strict=True))
            spread = (max(measured) - min(measured)) / base
            print(
                f"  {name:24s} {rate:10,.0f} tokens/s   time over rclib's {ratio:5.2f}"
                f"   (spread {spread:.2f})"
            )
        kept.add(f"width {width}, {tokens} tokens, {where}, {o.steps} steps", times)
        kept.add(f"width {width}, first step", first)
    kept.write()


if __name__ == "__main__":
    main()
