"""Every method: the start, the way there and back, counts, and its closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from adapter_methods import METHODS, drawn, moved
from scipy import linalg

from rclib.adapters.activations import EVA, IncrementalSVD, redistributed
from rclib.adapters.blocks import Bone, blocks, whole
from rclib.adapters.diagonal import STARTS, Diagonal, LoLDU, RandomFrames, SingularValues, ldu
from rclib.adapters.low_rank import LoRA, LowRank, OLoRA, PiSSA, orthonormal_rows
from rclib.adapters.method import Full
from rclib.training.stacked_optimizers import Settings, Updates

SHAPES = ((8, 12), (12, 12), (16, 8))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", METHODS)
def test_start_merge_unmerge_apply_and_count(name: str, shape: tuple[int, int]) -> None:
    method, weight, x = METHODS[name], drawn(*shape), drawn(40, shape[1], seed=1)
    before = weight.clone()
    parts = method.start(weight, seed=3, inputs=x)
    assert torch.equal(weight, before)
    assert torch.allclose(method.merge(parts), weight, atol=1e-12) == method.preserves
    after = moved(method, parts)
    merged = method.merge(after)
    assert torch.allclose(merged, method.merge(parts), atol=1e-6) == (not method.trained)
    assert torch.allclose(method.unmerge(merged, after), parts["base"], atol=1e-10)
    assert torch.allclose(method.apply(after, x), x @ merged.T, atol=1e-10)
    live = sum(int((parts[part] != 0).any(1).sum()) * shape[1] for part in ("A",) if part in parts)
    counted = sum(parts[part].numel() for part in method.trained)
    if isinstance(method, EVA) and method.kept is not None:
        counted = live + method.kept * shape[0]
    assert method.trained_count(*shape) == counted


@pytest.mark.parametrize("name", METHODS)
def test_single_precision_is_exact_to_a_millionth(name: str) -> None:
    method, weight = METHODS[name], drawn(12, 12, dtype=torch.float32) / 12**0.5
    x = drawn(40, 12, seed=1, dtype=torch.float32)
    parts = method.start(weight, seed=3, inputs=x)
    assert {p.dtype for p in parts.values()} == {torch.float32}
    if method.preserves:
        assert float((method.merge(parts) - weight).abs().max()) < 1e-6
    after = moved(method, parts, 0.01)
    back = method.unmerge(method.merge(after), after)
    assert float((back - parts["base"]).abs().max()) < 1e-6


@pytest.mark.parametrize("shape", [*SHAPES, (1, 5), (5, 1)])
def test_ldu_against_scipy(shape: tuple[int, int]) -> None:
    weight = drawn(*shape)
    found = ldu(weight)
    p, lower, upper = (torch.from_numpy(t) for t in linalg.lu(weight.numpy()))
    assert torch.allclose(found.left, p @ lower, atol=1e-12)
    assert torch.allclose(found.d[:, None] * found.right, upper, atol=1e-12)
    assert torch.allclose((found.left * found.d) @ found.right, weight, atol=1e-12)
    assert float(found.left.abs().max()) <= 1
    if shape[0] == shape[1]:
        assert math.isclose(
            float(found.d.abs().log().sum()), float(torch.linalg.slogdet(weight)[1]), rel_tol=1e-9
        )
    # Scale and order of rows: only the pivots and the permutation know of them.
    scaled, turned = ldu(3 * weight), ldu(weight.flip(0))
    assert torch.allclose(scaled.d, 3 * found.d)
    assert torch.allclose(scaled.left, found.left)
    assert torch.allclose(turned.left.flip(0), found.left)
    assert torch.allclose(turned.right, found.right)


def test_ldu_depends_on_the_order_of_columns_and_singular_values_do_not() -> None:
    weight, order = drawn(12, 12), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(
        ldu(weight[:, order]).d.abs().sort()[0], ldu(weight).d.abs().sort()[0]
    )
    one, other = (SingularValues(5).start(w) for w in (weight, weight[:, order]))
    assert torch.allclose(one["z"], other["z"])


def test_pivots_of_a_normal_matrix_grow_and_the_first_leave_more_than_there_was() -> None:
    for seed in range(5):
        weight = drawn(64, 64, seed=seed)
        found = ldu(weight)
        early, late = found.d.abs()[:16].mean(), found.d.abs()[-16:].mean()
        parts = LoLDU(16).start(weight)
        rest = weight - (parts["left"] * parts["z"]) @ parts["right"]
        assert early < late
        assert float(rest.square().sum() / weight.square().sum()) > 1


@pytest.mark.parametrize("start", STARTS)
def test_starts_of_the_diagonal_begin_at_w_only_if_repaired(start: str) -> None:
    weight = drawn(12, 10)
    pivots = ldu(weight).d[:6]
    broken, repaired = (LoLDU(6, z_start=start, repaired=fixed) for fixed in (False, True))
    slip, mended = broken.start(weight, seed=1), repaired.start(weight, seed=1)
    assert torch.equal(slip["z"], mended["z"])
    assert torch.allclose(repaired.merge(mended), weight, atol=1e-12)
    expected = weight + (slip["left"] * (slip["z"] - pivots)) @ slip["right"]
    assert torch.allclose(broken.merge(slip), expected, atol=1e-12)
    z, mean = slip["z"], float(pivots.mean())
    if start in ("uniform", "unit uniform"):
        assert float(z.abs().max()) <= (abs(mean) / 2 if start == "uniform" else 1)
        assert len(z.unique()) == 6
    exact = {"lu": pivots, "ones": 1.0, "zeros": 0.0, "constant": mean}
    if start in exact:
        assert torch.allclose(z, torch.as_tensor(exact[start]).to(z).expand(6))


def test_gradient_of_a_diagonal_is_one_number_a_direction() -> None:
    weight, x, toward = drawn(8, 12), drawn(20, 12, seed=1), drawn(20, 8, seed=2)
    for method in (LoLDU(5, alpha=2.0), SingularValues(5), RandomFrames(5)):
        parts = method.start(weight)
        z = parts["z"].clone().requires_grad_()
        ((method.apply({**parts, "z": z}, x) - toward) ** 2).sum().backward()
        gradient = 2 * (x @ weight.T - toward).T @ x
        by_hand = method.scale * torch.einsum(
            "oj,oi,ji->j", parts["left"], gradient, parts["right"]
        )
        assert z.grad is not None
        assert torch.allclose(z.grad, by_hand)


def test_twice_the_scale_at_half_the_rate_is_the_same_with_adam() -> None:
    weight, x, toward = drawn(8, 12), drawn(20, 12, seed=1), drawn(20, 8, seed=2)
    ends = []
    for alpha, rate in ((5.0, 0.02), (10.0, 0.01)):
        method: Diagonal = LoLDU(5, alpha=alpha)
        parts = method.start(weight)
        z = parts["z"].clone()[None]
        updates = Updates(Settings("adam", rate, eps=1e-30), {"z": z}, 20)
        for step in range(20):
            leaf = z[0].clone().requires_grad_()
            loss = ((method.apply({**parts, "z": leaf}, x) - toward) ** 2).mean()
            (gradient,) = torch.autograd.grad(loss, [leaf])
            z -= updates.step(step, [gradient[None]])[0]
        ends.append((method.merge({**parts, "z": z[0]}), z[0] - parts["z"]))
    assert torch.allclose(ends[0][0], ends[1][0], atol=1e-10)
    assert torch.allclose(ends[0][1], 2 * ends[1][1], atol=1e-10)
    assert float(ends[0][1].abs().max()) > 0.1


def test_random_frames_have_the_lengths_of_the_factors() -> None:
    weight = drawn(12, 10)
    ours, theirs = RandomFrames(6).start(weight, seed=4), LoLDU(6).start(weight)
    for part, axis in (("left", 0), ("right", 1)):
        assert torch.allclose(ours[part].norm(dim=axis), theirs[part].norm(dim=axis))
        assert not torch.allclose(ours[part], theirs[part])
    frame = orthonormal_rows(4, 9, torch.Generator().manual_seed(0))
    assert torch.allclose(frame @ frame.T, torch.eye(4, dtype=frame.dtype))


def test_what_singular_values_leave() -> None:
    weight = drawn(8, 12)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    base = SingularValues(5).start(weight)["base"]
    assert math.isclose(float(base.square().sum()), float(s[5:].square().sum()))
    assert math.isclose(float(torch.linalg.matrix_norm(base, 2)), float(s[5]))
    parts = SingularValues(8).start(weight)
    core = u.T @ SingularValues(8).merge({**parts, "z": drawn(8, seed=5)}) @ vh.T
    assert float((core - core.diagonal().diag()).abs().max()) < 1e-12
    bottom = SingularValues(3, which="bottom").start(weight)
    assert torch.allclose(bottom["z"], s[-3:])
    wrong = SingularValues(3, which="mispaired").start(weight)
    assert torch.allclose((wrong["right"] @ vh[:3].T).abs(), torch.eye(3).flip(0).double())
    assert torch.equal(wrong["base"], weight)


def test_singular_values_against_peers() -> None:
    from sklearn.decomposition import TruncatedSVD

    weight = drawn(12, 10)
    parts = SingularValues(4).start(weight)
    kept = (parts["left"] * parts["z"]) @ parts["right"]
    theirs = TruncatedSVD(4, algorithm="arpack", random_state=0).fit(weight.numpy())
    rows = torch.from_numpy(theirs.transform(weight.numpy()) @ theirs.components_)
    assert torch.allclose(kept, rows, atol=1e-8)
    assert torch.allclose(parts["z"], torch.from_numpy(theirs.singular_values_.copy()))
    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(weight, q=10)
    assert torch.allclose(parts["z"], s[:4])
    assert torch.allclose(kept, (u[:, :4] * s[:4]) @ v[:, :4].T, atol=1e-8)
    # No other matrix of rank 4 leaves less.
    for seed in range(5):
        other = kept + 0.01 * drawn(12, 4, seed=seed) @ drawn(4, 10, seed=seed + 9)
        nearest = torch.linalg.svd(other)
        other = (nearest[0][:, :4] * nearest[1][:4]) @ nearest[2][:4]
        assert float((weight - other).norm()) > float(parts["base"].norm())


def _trained_values(method: Diagonal, parts: dict[str, torch.Tensor], x: torch.Tensor,
                    toward: torch.Tensor) -> torch.Tensor:  # fmt: skip
    """z after some updates of Adam."""
    z = parts["z"].clone()[None]
    updates = Updates(Settings("adam", 0.05), {"z": z}, 15)
    for step in range(15):
        leaf = z[0].clone().requires_grad_()
        loss = ((method.apply({**parts, "z": leaf}, x) - toward) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, [leaf])
        z -= updates.step(step, [gradient[None]])[0]
    return z[0]


def test_signs_of_singular_vectors_do_not_matter() -> None:
    weight, x, toward = drawn(8, 12), drawn(20, 12, seed=1), drawn(20, 8, seed=2)
    method = SingularValues(5)
    parts = method.start(weight)
    signs = torch.tensor([1.0, -1, -1, 1, -1], dtype=weight.dtype)
    turned = {**parts, "left": parts["left"] * signs, "right": parts["right"] * signs[:, None]}
    ends = [_trained_values(method, own, x, toward) for own in (parts, turned)]
    assert torch.allclose(ends[0], ends[1], atol=1e-12)
    assert float((ends[0] - parts["z"]).abs().min()) > 0.01
    # Rotated inputs: the values go the same way. Mispaired vectors are another matter.
    q = orthonormal_rows(12, 12, torch.Generator().manual_seed(3))
    rotated = _trained_values(method, method.start(weight @ q), x @ q, toward)
    assert torch.allclose(ends[0], rotated, atol=1e-9)
    wrong = SingularValues(5, which="mispaired")
    assert not torch.allclose(
        _trained_values(wrong, wrong.start(weight), x, toward), ends[0] - parts["z"], atol=0.01
    )


def test_equal_singular_values_have_arbitrary_vectors() -> None:
    """W = c I: any rotation of the vectors is a decomposition, and trains to another W'."""
    weight, method = 2 * torch.eye(6, dtype=torch.float64), SingularValues(6)
    x = drawn(20, 6, seed=1)
    toward, parts = x @ (5 * drawn(6, 6, seed=2)), method.start(weight)
    q = orthonormal_rows(6, 6, torch.Generator().manual_seed(3))
    other = {**parts, "left": parts["left"] @ q, "right": q.T @ parts["right"]}
    assert torch.allclose(method.merge(other), weight, atol=1e-12)
    ends = [
        method.merge({**own, "z": _trained_values(method, own, x, toward)})
        for own in (parts, other)
    ]
    assert not torch.allclose(ends[0], ends[1], atol=0.01)


def test_starts_of_low_rank_terms() -> None:
    weight = drawn(8, 12)
    s = torch.linalg.svdvals(weight)
    pissa = PiSSA(3).start(weight)
    assert torch.allclose(torch.linalg.svdvals(pissa["B"] @ pissa["A"])[:3], s[:3])
    assert math.isclose(float(torch.linalg.matrix_norm(pissa["base"], 2)), float(s[3]))
    olora = OLoRA(3).start(weight)
    assert torch.allclose(olora["B"].T @ olora["B"], torch.eye(3, dtype=weight.dtype))
    assert torch.allclose(olora["base"][:, :3], torch.zeros(8, 3, dtype=weight.dtype), atol=1e-12)
    unit = LoRA(3, unit=True).start(weight)["A"]
    assert torch.allclose(unit.norm(dim=1), torch.ones(3, dtype=weight.dtype))
    wide = LoRA(64).start(drawn(64, 4096))["A"]
    assert math.isclose(float(wide.norm(dim=1).mean()), 3**-0.5, rel_tol=0.01)
    assert LoRA(16, alpha=32.0).scale == 2
    assert LoRA(16, alpha=32.0, stabilised=True).scale == 8
    assert LoRA(16, stabilised=True).scale == 4


def test_block_forms_entry_by_entry() -> None:
    weight, r = drawn(8, 12), 4
    assert torch.equal(whole(blocks(weight, r)), weight)
    assert torch.equal(blocks(weight, r)[1, 2], weight[4:8, 8:12])
    cases = (
        (Bone(r), "rows"), (Bone(r, form="sum"), "rows"), (Bone(r, form="product"), "rows"),
        (Bone(r, form="two"), "rows"), (Bone(r, index="columns"), "columns"),
        (Bone(r, index="columns", form="two"), "columns"),
    )  # fmt: skip
    for method, index in cases:
        number = 2 if index == "rows" else 3
        b, c = drawn(number, r, r, seed=1), drawn(number, r, r, seed=2)
        merged = method.merge({"base": weight, "B": b, "C": c})
        for row in range(2):
            for column in range(3):
                k = row if index == "rows" else column
                own = blocks(weight, r)[row, column]
                change = {
                    "guided": own @ b[k] + b[k], "sum": b[k], "product": own @ b[k],
                    "two": own @ b[k] + c[k],
                }[method.form]  # fmt: skip
                assert torch.allclose(blocks(merged, r)[row, column], own + change, atol=1e-12)


def test_limits_of_bone() -> None:
    weight, x = drawn(8, 12), drawn(20, 12, seed=1)
    b = drawn(2, 4, 4, seed=2)
    # Without a guide: LoRA with the frozen A = [1 1 1], and rank at most r.
    parts = {"base": weight, "B": b}
    a = torch.eye(4, dtype=weight.dtype).repeat(1, 3)
    lora = LowRank.term(LoRA(4), {"A": a, "B": b.reshape(8, 4)})
    assert torch.allclose(Bone(4, form="sum").merge(parts) - weight, lora, atol=1e-12)
    assert torch.linalg.matrix_rank(Bone(4, form="sum").merge(parts) - weight) == 4
    assert torch.linalg.matrix_rank(Bone(4).merge(parts) - weight) == 8
    # No weight, no guide.
    zero = {"base": torch.zeros_like(weight), "B": b}
    assert torch.allclose(Bone(4).merge(zero), Bone(4, form="sum").merge(zero))
    # r = 1: rows scaled, and a constant a row.
    one = drawn(8, 1, 1, seed=3)
    expected = (1 + one[:, 0]) * weight + one[:, 0]
    assert torch.allclose(Bone(1).merge({"base": weight, "B": one}), expected)
    # The guide's entries are those of W, elsewhere.
    start = Bone(4, guide="permuted").start(weight, seed=1)
    assert torch.equal(start["guide"].flatten().sort()[0], weight.flatten().sort()[0])
    assert not torch.equal(start["guide"], weight)
    assert torch.allclose(Bone(4, guide="permuted").apply(start, x), x @ weight.T)


@pytest.mark.parametrize("centred", [True, False])
def test_batches_give_the_decomposition_of_all_rows(centred: bool) -> None:
    x = drawn(60, 7) @ drawn(7, 7, seed=1) + 3.0
    found = IncrementalSVD(7, centred=centred)
    for batch in x.split(13):
        found.update(batch)
    rows = x - x.mean(0) if centred else x
    _, s, vh = torch.linalg.svd(rows, full_matrices=False)
    assert torch.allclose(found.values, s)
    assert torch.allclose((found.directions * vh).sum(1).abs(), torch.ones(7).double())
    assert torch.allclose(found.explained, s**2 / rows.square().sum())
    if centred:
        assert torch.allclose(found.mean, x.mean(0))
    largest = found.directions.gather(1, found.directions.abs().argmax(1, keepdim=True))
    assert bool((largest > 0).all())


def test_against_scikit_learn_with_few_components() -> None:
    from sklearn.decomposition import IncrementalPCA

    x = drawn(60, 9) @ drawn(9, 9, seed=1) + 1.0
    theirs, ours = IncrementalPCA(3), IncrementalSVD(3)
    for batch in x.split(20):
        theirs.partial_fit(batch.numpy())
        ours.update(batch)
    other = torch.from_numpy(theirs.components_)
    assert torch.allclose((ours.directions * other).sum(1).abs(), torch.ones(3).double())
    assert torch.allclose(ours.values, torch.from_numpy(theirs.singular_values_))
    ratios = torch.from_numpy(theirs.explained_variance_ratio_)
    assert torch.allclose(ours.explained, ratios)


def test_eva_takes_the_directions_asked_for() -> None:
    x = drawn(50, 6) * torch.tensor([9.0, 5, 3, 1, 0.5, 0.1]).double()
    weight = drawn(8, 6)
    top, bottom = (EVA(2, which=which).start(weight, inputs=x)["A"] for which in ("top", "bottom"))
    assert float(top[:, :2].square().sum()) > 1.9
    assert float(bottom[:, 4:].square().sum()) > 1.9
    mixed = EVA(2, which="permuted").start(weight, inputs=x, seed=1)["A"]
    assert torch.allclose(mixed.abs().sort()[0], top.abs().sort()[0])
    assert not torch.allclose(mixed, top)
    values = torch.linalg.svdvals(x - x.mean(0))[:2]
    whitened = EVA(2, whiten=True).start(weight, inputs=x)["A"]
    assert torch.allclose(whitened.norm(dim=1), values**-0.5)
    far = x + 100.0
    uncentred = EVA(1, centred=False).start(weight, inputs=far)["A"]
    assert float(uncentred.mean().abs() * 6**0.5) > 0.99
    # Batches until nothing turns: the second one says so.
    early = EVA(2, batch_size=20, tau=0.5).start(weight, inputs=x)["A"]
    two = IncrementalSVD(2)
    for batch in (x[:20], x[20:40]):
        two.update(batch)
    assert torch.allclose(early, two.directions)


def test_ranks_go_where_variance_is_explained() -> None:
    a, b = torch.tensor([0.5, 0.3, 0.1, 0.05]), torch.tensor([0.2, 0.1, 0.02, 0.01])
    assert redistributed([a, b], 2, rho=2.0) == [3, 1]
    assert redistributed([a, b], 2, rho=1.0) == [2, 2]
    assert redistributed([a, a * 0], 2, rho=2.0) == [4, 0]


def test_what_is_refused() -> None:
    weight = drawn(8, 12)
    for method, message in (
        (LoRA(9), "rank must be at most 8"),
        (SingularValues(9), "rank must be at most 8"),
        (Bone(5), "size must divide"),
        (EVA(2), "inputs must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            method.start(weight)
    with pytest.raises(ValueError, match="no pivot of zero"):
        LoLDU(1).start(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="finite"):
        Full().start(torch.full((2, 2), math.nan))
    with pytest.raises(ValueError, match="floating matrix"):
        Full().start(torch.zeros(3))
    for make, message in (
        (lambda: LoRA(0), "rank"),
        (lambda: LoRA(2, alpha=0.0), "alpha"),
        (lambda: LoLDU(2, alpha=-1.0), "alpha"),
        (lambda: LoLDU(2, z_start="none"), "z_start"),
        (lambda: Bone(2, form="none"), "form"),
        (lambda: EVA(2, tau=0.0), "tau"),
        (lambda: EVA(2, kept=3), "kept"),
        (lambda: EVA(2, batch_size=0), "batch_size"),
        (lambda: redistributed([], 2), "explained"),
        (lambda: redistributed([torch.ones(4)], 2, rho=0.5), "rho"),
        (lambda: orthonormal_rows(3, 2, torch.Generator()), "rank"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="at least rank"):
        EVA(4).start(weight, inputs=drawn(3, 12))
    found = IncrementalSVD(2)
    with pytest.raises(ValueError, match="batch must have shape"):
        found.update(torch.zeros(3))
    found.update(drawn(4, 3))
    with pytest.raises(ValueError, match="rows of 3"):
        found.update(drawn(4, 5))
