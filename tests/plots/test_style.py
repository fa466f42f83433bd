"""plots.style: colours that stay apart, and stay what they are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from rclib.plots import style

# Machado, Oliveira, Fernandes (2009), severity 1, on linear RGB.
SEEN_BY = {
    "everybody": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    with plt.rc_context():
        style.use_style()
        yield
    plt.close("all")


def linear(colours: list[object]) -> np.ndarray:
    rgb = np.array([mpl.colors.to_rgb(c) for c in colours])  # type: ignore[arg-type]
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b*, D65."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175],
         [0.0193339, 0.119192, 0.9503041]]
    )  # fmt: skip
    t = rgb @ to_xyz.T / [0.95047, 1.0, 1.08883]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


@pytest.mark.parametrize("who", list(SEEN_BY))
def test_colours_stay_apart(who: str) -> None:
    """Twice the distance that seaborn's colour-blind palette has in the same simulations (12)."""
    seen = lab(np.clip(linear(style.colours()) @ np.array(SEEN_BY[who]).T, 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert apart[~np.eye(len(seen), dtype=bool)].min() > 24


def test_colours_can_be_seen_on_white() -> None:
    light = linear(style.colours()) @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (light + 0.05)).min() >= 3.0  # WCAG 2.1, graphical objects


def test_names_that_occur_everywhere_have_one_look() -> None:
    alone = style.looks(["MF"])["MF"]
    for names in (["SP", "MF", "muP"], ["a", "MF", "b"], ["MF, step 9", "untrained"]):
        found = style.looks(names)
        (own,) = [name for name in names if name.startswith("MF")]
        assert found[own] == alone
        assert len({look["color"] for look in found.values()}) == len(names)
    several = style.looks(["MF, step 0", "MF, step 9"])
    assert len({look["color"] for look in several.values()}) == 2


def test_looks_differ_without_colour_and_begin_again_after_the_last() -> None:
    found = style.looks(range(9))
    assert len({(str(k["linestyle"]), k["marker"]) for k in found.values()}) == 9
    assert found["7"]["color"] == found["0"]["color"]


def test_ordered_values_end_solid_and_dark() -> None:
    found = style.ordered([256, 64, 128])
    assert list(found) == [64, 128, 256]
    assert [look["linestyle"] for look in found.values()][-1] == "-"
    assert len({str(look["linestyle"]) for look in found.values()}) == 3
    light = linear([look["color"] for look in found.values()]) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) < 0).all()


def test_a_style_file_on_top_sets_the_colours_too(tmp_path: Path) -> None:
    own = tmp_path / "own.mplstyle"
    own.write_text("axes.prop_cycle: cycler('color', ['ff0000', '00ff00'])\nfont.size: 11\n")
    style.use_also(own)
    assert style.looks(["SP"])["SP"]["color"] == "#ff0000"
    assert mpl.rcParams["font.size"] == 11
    with pytest.raises(ValueError, match=r"style file .*none\.mplstyle is missing"):
        style.use_also(tmp_path / "none.mplstyle")
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(linestyle=["-"])
    assert style.colour(3) == "0.0"


MODULES = sorted(Path(style.__file__).parents[1].rglob("*.py"))


def at_import(node: ast.AST) -> Iterator[str]:
    """Names of the functions that a module calls while it is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.Call):
            yield ast.unparse(child.func).rpartition(".")[2]
        yield from at_import(child)


def test_no_module_takes_a_colour_when_it_is_imported() -> None:
    """The style in use then is matplotlib's own, or another's."""
    asking = {"colour", "colours", "looks", "ordered"}
    found = {path.name: asking & set(at_import(ast.parse(path.read_text()))) for path in MODULES}
    assert "plots_have.py" in found
    assert {name for name, called in found.items() if called} == set()
    (call,) = asking & set(at_import(ast.parse("LOOKS = {'a': [style.colour(0)]}")))
    assert call == "colour"
