"""Training of language models by a `Recipe`, stopped and resumed anywhere.

The batch of step s is a function of (seed, s), so a run's whole state is the weights, Adam's
means and the step: a resumed run repeats an uninterrupted one bit for bit on a CPU with the
same thread count. Nothing is random but the start and the batches.

Matrix means, not whole models, are what most runs keep: `<name>.C`, the mean of each row, and
`<name>.R`, the mean of each column, in the names of paper A's Figure 4.4.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from rclib.data.text import TextData
from rclib.nets.gpt import GPT
from rclib.training import lm_state
from rclib.training.lm_recipe import Recipe, learning_rate, make_optimizer
from rclib.training.lm_record import LMHistory, LMRecord

__all__ = [
    "DivergedRunError",
    "LMHistory",
    "Recipe",
    "cpp_compiler",
    "evaluate_lm",
    "flops_per_token",
    "learning_rate",
    "make_optimizer",
    "matrix_means",
    "peak_flops",
    "train_lm",
]

CHECK_EVERY = 50  # steps between looks at the losses: a look waits for the device


class DivergedRunError(RuntimeError):
    """The loss became NaN or infinite. `history` is the record up to there, `step` where."""

    def __init__(self, message: str, history: LMHistory, step: int) -> None:
        super().__init__(message)
        self.history, self.step = history, step


def matrix_means(model: GPT) -> dict[str, Tensor]:
    """`<name>.C` (mean of each row) and `<name>.R` (of each column) of every weight matrix.

    Rows are the fan-out, as in `GPT.matrices`; summed in float64, returned as float32 on the CPU.
    """
    out: dict[str, Tensor] = {}
    for name, w in model.matrices().items():
        out[f"{name}.C"] = w.double().mean(1).float().cpu()
        out[f"{name}.R"] = w.double().mean(0).float().cpu()
    return out


def _loss(logits: Tensor, windows: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


@torch.no_grad()
def evaluate_lm(
    model: Callable[[Tensor], Tensor],
    text: TextData,
    *,
    context: int,
    batches: int = 4,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> float:
    """Mean cross-entropy (nats per token) on the fixed windows of the validation part."""
    total = torch.zeros((), dtype=torch.float64)
    for windows in text.validation_batches(batches, batch_size=batch_size, context=context):
        moved = windows.to(device)
        total += _loss(model(moved[:, :-1]), moved).cpu()
    return float(total) / batches


def flops_per_token(model: GPT) -> float:
    """Floating-point operations of training per token, forward and backward.

    Six for every entry of a matrix that multiplies the stream, and 12 L T N for attention
    (counted in full, the usual way, though half of it is masked).
    """
    entries = sum(w.numel() for n, w in model.matrices().items() if n not in _TABLES)
    return 6.0 * entries + 12.0 * len(model.blocks) * model.context * model.width


_TABLES = ("embedding", "position")  # looked up, not multiplied


def peak_flops(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.2) -> float:
    """Operations per second of a large matrix product on this device, measured."""
    n = 8192 if device.type == "cuda" else 768
    a, b = (torch.ones(n, n, device=device, dtype=dtype) for _ in range(2))

    def timed(times: int) -> float:
        _wait(device)
        begin = time.perf_counter()
        for _ in range(times):
            torch.mm(a, b)
        _wait(device)
        return time.perf_counter() - begin

    timed(1)
    times = max(1, round(seconds / max(timed(1), 1e-6)))
    return 2.0 * n**3 * times / timed(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train_lm(
    model: GPT,
    text: TextData,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 120.0,
    keep_last: bool = True,
    stop_at: int | None = None,
    moments: Mapping[str, Tensor] | None = None,
    precision: str = "auto",
    compiled: bool | None = None,
    progress: bool = True,
) -> LMHistory:
    """Train `model` in place and return the record.

    checkpoint : folder for the run's state, written every `checkpoint_seconds` and at `stop_at`;
        if it holds a state, the run goes on from there. Snapshots are kept beside it.
    keep_last : write the state of the last step there too; a caller that deletes the folder of a
        finished run does without.
    stop_at : stop after this step, with the state saved; call again to go on.
    moments : Adam's means to start with (`lm_state.adam_moments`), e.g. of a grown network.
    precision : "float32", "bfloat16" (autocast) or "auto": bfloat16 on a GPU.
    compiled : torch.compile, on a GPU with CUDA graphs; default on a GPU alone. On a CPU it asks
        for a C++ compiler and for most of a minute before the first step; the steps are then
        faster by what docs/speed.md says, so it pays from some ten thousand of them on.

    Raises ValueError for arguments out of range, a text shorter than the context, another
    vocabulary and `compiled` on a CPU without a compiler, StateError for a checkpoint of another
    run, and DivergedRunError when the loss is no number any more; the last state saved before
    stays where it is.
    """
    run = _Run(model, text, recipe, checkpoint, moments, precision, compiled)
    last = recipe.steps if stop_at is None else stop_at
    if not run.step <= last <= recipe.steps:
        raise ValueError(f"stop_at must lie in {run.step} ... {recipe.steps}, got {stop_at}")
    if stop_at is not None and checkpoint is None:
        raise ValueError("stop_at needs a checkpoint folder to go on from")
    saved = time.monotonic()
    tokens = recipe.batch_size * model.context
    bar = tqdm(
        total=(last - run.step) * tokens,
        unit="tok",
        unit_scale=True,
        leave=False,
        disable=None if progress else True,
    )
    peak = 0.0 if bar.disable else peak_flops(run.device, run.dtype)
    begin, first = time.monotonic(), run.step
    with bar:
        while True:
            run.events()
            if run.step == last:
                break
            run.one_step()
            if run.step % CHECK_EVERY and run.step != last:
                continue
            run.check()
            bar.update((run.step - first) * tokens - bar.n)
            if peak:
                rate = (run.step - first) * tokens / (time.monotonic() - begin)
                bar.set_postfix(
                    loss=f"{float(run.losses.until(run.step)[-1]):.3f}",
                    MFU=f"{rate * flops_per_token(model) / peak:.0%}",
                )
            if checkpoint is not None and time.monotonic() - saved > checkpoint_seconds:
                run.record.save(run.step, model, run.optimizer)
                saved = time.monotonic()
    if checkpoint is not None and (keep_last or stop_at is not None):
        run.record.save(run.step, model, run.optimizer)
    return run.record.history(run.step)


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile uses on a CPU, of which it knows one: $CXX, or its own
    choice for this system. None where that is not installed."""
    own = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return shutil.which(shlex.split(os.environ.get("CXX") or own)[0])


def _compile_mode(device: torch.device, recipe: Recipe) -> str:
    """CUDA graphs where they can be: they launch all kernels of a step at once, which takes longer
    one by one than the kernels themselves. A graph's next call writes over its buffers, so the
    gradients of one part of a batch could not wait in them for those of the next."""
    graphs = device.type == "cuda" and recipe.accumulation == 1
    return "reduce-overhead" if graphs else "default"


class _Run:
    """A run in progress: what `train_lm` loops over."""

    def __init__(
        self,
        model: GPT,
        text: TextData,
        recipe: Recipe,
        folder: Path | None,
        moments: Mapping[str, Tensor] | None,
        precision: str,
        compiled: bool | None,
    ) -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(
                f"precision must be 'auto', 'float32' or 'bfloat16', got {precision!r}"
            )
        text.check_context(model.context)
        if model.vocabulary < int(text.tokens.max()) + 1:
            raise ValueError(
                f"vocabulary must hold byte {int(text.tokens.max())} of {text.name!r}, "
                f"got {model.vocabulary}"
            )
        self.model, self.text, self.recipe = model, text, recipe
        self.device = next(model.parameters()).device
        on_gpu = self.device.type == "cuda"
        half = precision == "bfloat16" or (precision == "auto" and on_gpu)
        self.dtype = torch.bfloat16 if half else torch.float32
        self.forward: Callable[[Tensor], Tensor] = model
        if compiled and self.device.type == "cpu" and cpp_compiler() is None:
            raise ValueError("compiled must be False on a CPU without a C++ compiler, got True")
        if on_gpu if compiled is None else compiled:
            mode = _compile_mode(self.device, recipe)
            self.forward = torch.compile(model, mode=mode)  # type: ignore[assignment]
        self.optimizer = make_optimizer(model, recipe)
        if moments:
            lm_state.set_adam_moments(model, self.optimizer, moments)
        self.record = LMRecord(recipe, folder, self.device)
        self.losses = self.record.losses
        self.step = recipe.first_step
        if folder is not None:
            settings = {
                "model": model.options(),
                "recipe": asdict(recipe),
                "text": text.checksum,
                "precision": str(self.dtype),
                "start": lm_state.digest(dict(model.state_dict()) | dict(moments or {})),
            }
            self.step = self.record.resume(settings, model, self.optimizer)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def one_step(self) -> None:
        recipe = self.recipe
        share = learning_rate(recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * share
        windows = self.text.batch(
            self.step,
            seed=recipe.seed,
            batch_size=recipe.batch_size,
            context=self.model.context,
        ).to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        at = self.step - recipe.first_step
        for part in windows.chunk(recipe.accumulation):
            with self.autocast():
                logits = self.forward(part[:, :-1])
            loss = _loss(logits, part) / recipe.accumulation
            loss.backward()
            self.losses.values[at] += loss.detach()
        self.optimizer.step()
        self.step += 1

    def events(self) -> None:
        """What the recipe asks for at this step: validation loss, means, snapshot."""
        recipe, step, kept = self.recipe, self.step, self.record.kept
        if kept.due("eval_loss", step):
            self.check()
            with self.autocast():
                loss = evaluate_lm(
                    self.forward,
                    self.text,
                    context=self.model.context,
                    batches=recipe.eval_batches,
                    batch_size=recipe.batch_size // recipe.accumulation,
                    device=self.device,
                )
            if not math.isfinite(loss):
                kept.values["eval_loss"].pop(step, None)  # of before the run was resumed
                self._diverged("validation loss is no number", step)
            kept.keep("eval_loss", step, loss)
        if kept.due("means", step):
            self.check()
            kept.keep("means", step, matrix_means(self.model))
        if kept.due("snapshots", step) and step not in kept.values["snapshots"]:
            self.check()
            moments = recipe.snapshot_moments
            self.record.snapshot(step, self.model, self.optimizer if moments else None)

    def check(self) -> None:
        """DivergedRunError if a loss since the last look is not finite."""
        bad = self.losses.bad(self.step)
        if bad is not None:
            self._diverged(f"loss is {bad[1]}", bad[0])

    def _diverged(self, what: str, step: int) -> None:
        model, recipe = self.model, self.recipe
        raise DivergedRunError(
            f"{what} at step {step} with learning rate {recipe.lr:g} and width {model.width} "
            f"({model.parametrization.name}, {recipe.optimizer})",
            self.record.history(step),
            step,
        )
