"""Fully connected networks under any parametrisation (paper A, Examples 1.1, 1.2 and Section 4).

With L weight matrices, widths N_0 = d, N_1 ... N_{L-1}, N_L classes and multipliers m_l,

    z_1 = m_1 W_1 x + B_1,   z_l = m_l W_l σ(z_{l-1}) + B_l,   f(x) = z_L .

Under mean field (MF) m_l = 1/N_{l-1} for every layer after the first, which for L = 3 is the
3-layer network of paper A, Example 1.1. Parameters carry the paper's names W1, B1, W2, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from rclib.checks.arguments import brief, choice, count, mapping, seed_of, text
from rclib.nets.init import ACTIVATIONS, BIASES, Init
from rclib.nets.parametrization import Parametrization
from rclib.nets.parametrization import parametrization as lookup
from rclib.rowcolumn.axes import mlp_axes

__all__ = ["MLP"]


class MLP(nn.Module):
    """A network of `depth` weight matrices W1 (N_1, d) ... W{depth} (classes, N_{depth-1}).

    Parameters
    ----------
    d, classes : input and output sizes.
    width : hidden width N, or one width per hidden layer.
    depth : number of weight matrices (3 for the paper's 3-layer network).
    parametrization : "SP", "MF", "muP" or a `Parametrization`.
    activation : a key of `ACTIVATIONS`.
    init : law of the weights; a mapping from layer type to law overrides single layer types
        ("input", "hidden", "output").
    bias : "none", "constant" (every entry `bias_init.mean`) or "random" (`bias_init`).
        Biases are trained. The output bias starts at zero.
    seed : initial weights are a function of the seed and the shapes alone.

    Raises ValueError naming the argument for sizes below one and unknown names.
    """

    def __init__(
        self,
        d: int,
        width: int | Sequence[int],
        classes: int,
        *,
        depth: int = 3,
        parametrization: str | Parametrization = "MF",
        activation: str = "tanh",
        init: Init | Mapping[str, Init] = Init(),
        bias: str = "random",
        bias_init: Init = Init(),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.depth = depth = count("depth", depth)
        if not isinstance(width, (int, Integral, list, tuple)):
            raise ValueError(f"width must be an integer or a list of integers, got {brief(width)}")
        hidden = list(width) if isinstance(width, (list, tuple)) else [width] * (depth - 1)
        if len(hidden) != depth - 1:
            raise ValueError(f"width must list {depth - 1} hidden widths, got {brief(width)}")
        self.sizes = (
            count("d", d),
            *(count("width", n) for n in hidden),
            count("classes", classes),
        )
        self.activation = choice("activation", activation, ACTIVATIONS)
        self.bias = choice("bias", bias, BIASES)
        self.parametrization = lookup(parametrization)
        self.axes = mlp_axes(depth, bias=bias != "none")
        generator = torch.Generator().manual_seed(seed_of("seed", seed))
        laws = (
            dict.fromkeys(("input", "hidden", "output"), init) if isinstance(init, Init) else init
        )
        if not isinstance(laws, Mapping) or not set(laws) <= {"input", "hidden", "output"}:
            raise ValueError(f"init must name layer types input, hidden, output, got {brief(init)}")
        for law in (*laws.values(), bias_init):
            if not isinstance(law, Init):
                raise ValueError(f"init and bias_init must be laws of type Init, got {brief(law)}")
        self._multipliers: dict[int, float] = {}  # every training step asks for them
        for layer in range(1, depth + 1):
            kind = self.layer_type(f"W{layer}")
            shape = (self.sizes[layer], self.sizes[layer - 1])
            self._multipliers[layer] = self.parametrization[kind].multiplier(shape[1], shape[0])
            scale = self.parametrization[kind].init(shape[1], shape[0])
            weight = scale * laws.get(kind, Init()).sample(shape, generator)
            self.register_parameter(f"W{layer}", nn.Parameter(weight))
            if bias != "none":
                self.register_parameter(
                    f"B{layer}", nn.Parameter(self._bias(layer, generator, bias_init))
                )

    def _bias(self, layer: int, generator: torch.Generator, law: Init) -> Tensor:
        size = self.sizes[layer]
        if layer == self.depth:
            return torch.zeros(size)
        if self.bias == "constant":
            return torch.full((size,), float(law.mean))
        return law.sample((size,), generator)

    def layer_type(self, name: str) -> str:
        """Layer type of a parameter: "input", "hidden", "output", "bias" or "output_bias".

        Raises ValueError for a name that no network of this depth has.
        """
        number = str(name)[1:]
        layer = int(number) if number.isdecimal() else 0
        if str(name)[:1] not in ("W", "B") or not 1 <= layer <= self.depth:
            raise ValueError(f"name must be W1 ... W{self.depth} or B1 ..., got {brief(name)}")
        if name[0] == "B":
            return "output_bias" if layer == self.depth else "bias"
        # A single matrix is both first and last; its fan-in is the fixed input size.
        return "input" if layer == 1 else "output" if layer == self.depth else "hidden"

    def multiplier(self, layer: int) -> float:
        """m_l, the factor in front of W_l. Raises ValueError for a layer that is not there."""
        plain = isinstance(layer, Integral) and not isinstance(layer, bool)
        if not plain or layer not in self._multipliers:
            raise ValueError(f"layer must be from 1 to {self.depth}, got {brief(layer)}")
        return self._multipliers[layer]

    def lr_factors(self, optimizer: str = "sgd") -> dict[str, float]:
        """Learning-rate factor of each parameter, by name."""
        factors = {}
        for name, _ in self.named_parameters():
            layer = int(name[1:])
            power = self.parametrization[self.layer_type(name)].lr(optimizer)
            factors[name] = power(self.sizes[layer - 1], self.sizes[layer])
        return factors

    def fan_in_exponents(self) -> dict[str, float]:
        """Exponent a of each weight's multiplier `fan_in ** -a`, for `rclib.rowcolumn.transfer`."""
        return {
            f"W{layer}": -self.parametrization[
                self.layer_type(f"W{layer}")
            ].multiplier.fan_in_exponent
            for layer in range(1, self.depth + 1)
        }

    def forward_all(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """([z_1, ..., z_L], [x, σ(z_1), ..., σ(z_{L-1})]) for inputs x (n, d).

        Raises ValueError for inputs of another shape, dtype or device than the weights', TypeError
        for what is no tensor.
        """
        self._check_inputs(x)
        sigma = ACTIVATIONS[self.activation]
        parameters = self._parameters
        zs: list[Tensor] = []
        hs = [x]
        for layer in range(1, self.depth + 1):
            weight, bias = parameters[f"W{layer}"], parameters.get(f"B{layer}")
            assert weight is not None
            scale = self._multipliers[layer]
            # addmm folds multiplier and bias into the matrix product.
            if bias is not None:
                z = torch.addmm(bias, hs[-1], weight.t(), alpha=scale)
            else:
                z = scale * (hs[-1] @ weight.t())
            zs.append(z)
            if layer < self.depth:
                hs.append(sigma(z))
        return zs, hs

    def _check_inputs(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a torch tensor, got {type(x).__name__}")
        first = self.W1
        if x.ndim != 2 or x.shape[1] != self.sizes[0]:
            raise ValueError(f"x must have shape (n, {self.sizes[0]}), got {tuple(x.shape)}")
        if x.dtype != first.dtype or x.device != first.device or x.layout != torch.strided:
            raise ValueError(
                f"x must be dense, {first.dtype}, on {first.device}, as the weights are; got "
                f"{x.dtype}, {x.layout}, on {x.device}"
            )

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """z_1 (n, N_1), ..., z_L (n, classes) for inputs x (n, d)."""
        return self.forward_all(x)[0]

    def forward(self, x: Tensor) -> Tensor:
        """f(x), shape (n, classes), for x of shape (n, d)."""
        return self.preactivations(x)[-1]

    def like(self, width: int | Sequence[int], state: Mapping[str, Tensor] | None = None) -> MLP:
        """The same architecture at another width, of the same dtype and on the same device.

        It holds `state` if given, else a fresh draw from the default laws with seed 0. Raises
        ValueError for a width below one, RuntimeError (torch's) for a state of other shapes.
        """
        other = MLP(
            self.sizes[0],
            width,
            self.sizes[-1],
            depth=self.depth,
            parametrization=self.parametrization,
            activation=self.activation,
            bias=self.bias,
        )
        first = next(self.parameters())
        other.to(device=first.device, dtype=first.dtype)
        if state is not None:
            other.load_state_dict({text("state", k): v for k, v in mapping("state", state).items()})
        return other
