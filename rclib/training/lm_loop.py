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
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
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

__all__ = [
    "DivergedRunError",
    "LMHistory",
    "Recipe",
    "evaluate_lm",
    "flops_per_token",
    "learning_rate",
    "make_optimizer",
    "matrix_means",
    "peak_flops",
    "train_lm",
]

CHECK_EVERY = 50  # steps between looks at the losses: a look waits for the device
STATE = "state.safetensors"


class DivergedRunError(RuntimeError):
    """The loss became NaN or infinite. `history` is the record up to there, `step` where."""

    def __init__(self, message: str, history: LMHistory, step: int) -> None:
        super().__init__(message)
        self.history, self.step = history, step


@dataclass
class LMHistory:
    """Record of a run, up to `step`.

    train_loss : (step - first_step,) batch losses in nats per token, of the batch before its step.
    eval_loss : {step: validation loss, nats per token}.
    means : {step: {"<matrix>.C" or ".R": (rows,) or (columns,) float32}}.
    snapshots : {step: {name: tensor}}, CPU copies; Adam's means as "exp_avg/<name>" and so on.
    """

    step: int
    train_loss: Tensor
    eval_loss: dict[int, float] = field(default_factory=dict)
    means: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)


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
    stop_at: int | None = None,
    moments: Mapping[str, Tensor] | None = None,
    precision: str = "auto",
    compiled: bool | None = None,
    progress: bool = True,
) -> LMHistory:
    """Train `model` in place and return the record.

    checkpoint : folder for the run's state, written every `checkpoint_seconds` and at `stop_at`;
        if it holds a state, the run goes on from there. Snapshots are kept beside it.
    stop_at : stop after this step, with the state saved; call again to go on.
    moments : Adam's means to start with (`lm_state.adam_moments`), e.g. of a grown network.
    precision : "float32", "bfloat16" (autocast) or "auto": bfloat16 on a GPU.
    compiled : torch.compile; default on a GPU alone.

    Raises ValueError for arguments out of range, a text shorter than the context and another
    vocabulary, StateError for a checkpoint of another run, and DivergedRunError when the loss is
    no number any more; the last state saved before stays where it is.
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
                    loss=f"{float(run.losses[run.step - recipe.first_step - 1]):.3f}",
                    MFU=f"{rate * flops_per_token(model) / peak:.0%}",
                )
            if checkpoint is not None and time.monotonic() - saved > checkpoint_seconds:
                run.save()
                saved = time.monotonic()
    if checkpoint is not None:
        run.save()
    return run.history()


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
        self.model, self.text, self.recipe, self.folder = model, text, recipe, folder
        self.device = next(model.parameters()).device
        on_gpu = self.device.type == "cuda"
        half = precision == "bfloat16" or (precision == "auto" and on_gpu)
        self.dtype = torch.bfloat16 if half else torch.float32
        self.forward: Callable[[Tensor], Tensor] = model
        if on_gpu if compiled is None else compiled:
            self.forward = torch.compile(model)  # type: ignore[assignment]
        self.optimizer = make_optimizer(model, recipe)
        if moments:
            lm_state.set_adam_moments(model, self.optimizer, moments)
        self.step = self.checked = recipe.first_step
        self.losses = torch.zeros(recipe.steps - recipe.first_step, device=self.device)
        self.record = LMHistory(self.step, self.losses)
        self.settings: dict[str, Any] = {}
        if folder is not None:
            self.settings = {
                "model": model.options(),
                "recipe": asdict(recipe),
                "text": text.checksum,
                "precision": str(self.dtype),
                "start": lm_state.digest(dict(model.state_dict()) | dict(moments or {})),
            }
            if (folder / STATE).is_file():
                self._resume(folder)

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
            self.losses[at] += loss.detach()
        self.optimizer.step()
        self.step += 1

    def events(self) -> None:
        """What the recipe asks for at this step: validation loss, means, snapshot."""
        recipe, step = self.recipe, self.step
        if step in recipe.eval_steps:
            self.check()
            with self.autocast():
                self.record.eval_loss[step] = evaluate_lm(
                    self.forward,
                    self.text,
                    context=self.model.context,
                    batches=recipe.eval_batches,
                    batch_size=recipe.batch_size // recipe.accumulation,
                    device=self.device,
                )
            if not math.isfinite(self.record.eval_loss[step]):
                del self.record.eval_loss[step]
                self._diverged("validation loss is no number", step)
        if step in recipe.mean_steps:
            self.check()
            self.record.means[step] = matrix_means(self.model)
        if step in recipe.snapshot_steps and step not in self.record.snapshots:
            self.check()
            kept = {n: t.detach().cpu().clone() for n, t in self.model.state_dict().items()}
            if recipe.snapshot_moments:
                moments = lm_state.adam_moments(self.model, self.optimizer)
                kept |= {n: t.detach().cpu().clone() for n, t in moments.items()}
            self.record.snapshots[step] = kept
            if self.folder is not None:
                lm_state.save_state(self._snapshot_path(step), kept, self.settings)

    def check(self) -> None:
        """DivergedRunError if a loss since the last look is not finite."""
        first = self.recipe.first_step
        recent = self.losses[self.checked - first : self.step - first]
        bad = torch.nonzero(~torch.isfinite(recent))
        if len(bad):
            at = self.checked + int(bad[0])
            self._diverged(f"loss is {float(recent[int(bad[0])])}", at)
        self.checked = self.step

    def _diverged(self, what: str, step: int) -> None:
        model, recipe = self.model, self.recipe
        self.step = step
        raise DivergedRunError(
            f"{what} at step {step} with learning rate {recipe.lr:g} and width {model.width} "
            f"({model.parametrization.name}, {recipe.optimizer})",
            self.history(),
            step,
        )

    def history(self) -> LMHistory:
        done = self.step - self.recipe.first_step
        self.record.step, self.record.train_loss = self.step, self.losses[:done].cpu()
        return self.record

    def _snapshot_path(self, step: int) -> Path:
        assert self.folder is not None
        return self.folder / f"snapshot-{step}.safetensors"

    def save(self) -> None:
        """Write the state; snapshots lie beside it already."""
        assert self.folder is not None
        tensors = {f"model/{n}": t for n, t in self.model.state_dict().items()}
        moments = lm_state.adam_moments(self.model, self.optimizer)
        tensors |= {f"adam/{n}": t for n, t in moments.items()}
        tensors["train_loss"] = self.losses[: self.step - self.recipe.first_step]
        for step, group in self.record.means.items():
            tensors |= {f"means/{step}/{label}": t for label, t in group.items()}
        record = {
            "settings": self.settings,
            "step": self.step,
            "eval_loss": {str(s): v for s, v in self.record.eval_loss.items()},
            "snapshots": sorted(self.record.snapshots),
        }
        lm_state.save_state(self.folder / STATE, tensors, record)

    def _resume(self, folder: Path) -> None:
        path = folder / STATE
        tensors, record = lm_state.load_state(path)
        lm_state.check_same_run(path, record["settings"], self.settings)
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "adam": {}, "means": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind in groups:
                groups[kind][rest] = tensor
        self.model.load_state_dict(groups["model"])
        if groups["adam"]:
            lm_state.set_adam_moments(self.model, self.optimizer, groups["adam"])
        self.step = self.checked = int(record["step"])
        self.losses[: len(tensors["train_loss"])] = tensors["train_loss"].to(self.device)
        self.record.eval_loss = {int(s): float(v) for s, v in record["eval_loss"].items()}
        for name, tensor in groups["means"].items():
            at, _, label = name.partition("/")
            self.record.means.setdefault(int(at), {})[label] = tensor
        for at in record["snapshots"]:
            self.record.snapshots[at] = lm_state.load_state(self._snapshot_path(at))[0]
