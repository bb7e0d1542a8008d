"""Weight-merging methods in double precision, as references for implementations.

Each method is written here from its mathematical definition, in numpy and apart from any implementation:

- `reference` follows mergekit 0.1.5 for one tensor. Where mergekit departs from a method's definition or fills a gap in
  it (thresholds, floors, the sign of a zero sum, roundings), the line says that this is mergekit's convention.
- `ties_paper` and `model_stock_paper` follow the papers: Yadav et al. 2023 (arXiv 2306.01708), Jang et al. 2024
  (arXiv 2403.19522).

Definitions: linear (Wortsman et al. 2022, 2203.05482), slerp (Shoemake 1985), Karcher mean (2603.04972), task
arithmetic (Ilharco et al. 2023, 2212.04089), breadcrumbs (Davari and Belilovsky 2023, 2312.06795), SCE (Wan et al.
2024, 2408.07990), RAM (2601.13572). nuslerp, multislerp, nearswap and arcee_fusion have no paper: mergekit's
documentation and behaviour define them.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
PerInput = float | Sequence[float]


def reference(method: str, parameters: dict[str, Any], base: np.ndarray | None, members: list[np.ndarray]) -> Array:
    """One merged tensor. Parameters have mergekit's names and defaults; unknown and missing ones are errors.

    Per-input parameters are one number, or a list in the order of the members. The base of methods that have none
    (linear, slerp, karcher, nearswap, arcee_fusion, passthrough) is ignored: only members are merged.
    """
    arguments = {"lambda_" if name == "lambda" else name: value for name, value in parameters.items()}
    inputs = [np.asarray(member, dtype=np.float64) for member in members]
    if method in AMONG_MEMBERS:
        merged = AMONG_MEMBERS[method](inputs, **arguments)
        return np.asarray(merged, dtype=np.float64)
    if base is not None:
        origin = np.asarray(base, dtype=np.float64)
    elif method in AROUND_AN_ORIGIN:
        origin = np.zeros_like(inputs[0])
    else:
        raise ValueError(f"{method} needs a base")
    around = AROUND_AN_ORIGIN.get(method) or AROUND_THE_BASE[method]
    return np.asarray(around(origin, inputs, **arguments), dtype=np.float64)


def _per_input(value: PerInput, count: int) -> list[float]:
    values = [value] * count if isinstance(value, int | float) else list(value)
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count} members")
    return [float(v) for v in values]


def _sum(terms: Iterable[npt.ArrayLike]) -> Array:
    return np.sum(np.stack([np.asarray(term, dtype=np.float64) for term in terms]), axis=0)


def _length(x: Array) -> float:
    return float(np.linalg.norm(x))


# Averages and spheres: methods of the members alone


def _linear(members: list[Array], *, weight: PerInput, normalize: bool = True) -> Array:
    weights = _per_input(weight, len(members))
    total = _sum(w * x for w, x in zip(weights, members, strict=True))
    return total / np.sum(weights) if normalize else total


def _passthrough(members: list[Array], *, scale: PerInput | list[None] | None = None) -> Array:
    (member,) = members
    factor = scale[0] if isinstance(scale, Sequence) else scale
    return member.copy() if factor is None else float(factor) * member


def _along_the_arc(t: float, a: Array, b: Array, cosine: float, straight: bool) -> Array:
    """Shoemake's slerp: the coefficients belong to the unit vectors, and are applied to the vectors as they are."""
    if straight:
        return (1 - t) * a + t * b
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def _slerp(members: list[Array], *, t: float) -> Array:
    start, end = members
    # mergekit's convention: vectors of 1e-8 or less are not brought to length one, so that they count as orthogonal.
    lengths = [length if (length := _length(x)) > 1e-8 else 1.0 for x in members]
    cosine = float(np.clip(np.sum((start / lengths[0]) * (end / lengths[1])), -1, 1))
    # mergekit's convention: a straight line beyond this cosine, for opposite vectors too.
    return _along_the_arc(t, start, end, cosine, straight=abs(cosine) > 0.9995)


def _log_map(centre: Array, point: Array, tol: float) -> Array:
    """The tangent at `centre` that leads to `point`, both on the unit sphere."""
    cosine = np.clip(np.sum(centre * point), -1, 1)
    angle = np.arccos(cosine)
    # mergekit's convention: points closer than tol do not pull.
    return np.zeros_like(centre) if angle < tol else angle / np.sin(angle) * (point - cosine * centre)


def _karcher(members: list[Array], *, max_iter: int = 10, tol: float = 1e-5) -> Array:
    """The mean on the sphere by steps of the mean tangent, times the mean length; all members count alike."""
    if len(members) == 1:
        return members[0].copy()
    lengths = [_length(x) for x in members]
    # mergekit's convention: a tensor no longer than tol has no direction, but still counts in the mean length.
    points = [x / length for x, length in zip(members, lengths, strict=True) if length > tol]
    if not points:
        return np.zeros_like(members[0])
    centre = _sum(points) / len(points)
    # mergekit's convention: where the directions cancel, the first one is the start.
    centre = points[0] if _length(centre) < tol else centre / _length(centre)
    for _ in range(max_iter):
        step = _sum(_log_map(centre, point, tol) for point in points) / len(points)
        length = _length(step)
        if length < tol:
            break
        centre = np.cos(length) * centre + np.sin(length) * step / length
        centre = centre / _length(centre)
    return float(np.mean(lengths)) * centre


def _nearswap(members: list[Array], *, t: float) -> Array:
    """Move the first member by at most t in each entry towards the second."""
    first, second = members
    # mergekit's convention: distances below 1e-6 count as 1e-6, and a t below zero as zero.
    share = np.clip(t / np.maximum(np.abs(second - first), 1e-6), 0, 1)
    return first + share * (second - first)


def _softmax(x: Array) -> Array:
    powers = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)


def _arcee_fusion(members: list[Array]) -> Array:
    """The first member, with the other's entries where change times divergence is far above the median."""
    first, second = (np.atleast_1d(x) for x in members)
    if first.size > 1_000_000:
        raise ValueError("mergekit draws a random sample of tensors above a million entries")
    # mergekit's convention: 1e-8 on every probability.
    p, q = _softmax(second) + 1e-8, _softmax(first) + 1e-8
    importance = np.abs(second - first) * np.sum(p * np.log(p / q), axis=-1, keepdims=True)
    # mergekit's convention: a quartile is the entry at its position rounded down, without interpolation.
    q1, median, q3 = np.sort(importance, axis=None)[[int(f * (importance.size - 1)) for f in (0.25, 0.5, 0.75)]]
    taken = importance >= median + 1.5 * (q3 - q1)
    return np.where(taken, second, first).reshape(members[0].shape)


# Spheres around an origin, which is zero without a base


def _nuslerp_arc(t: float, a: Array, b: Array) -> Array:
    # mergekit's convention: lengths below 1e-7 count as 1e-7, so that a vector of zeros is orthogonal to every other.
    cosine = float(np.clip(np.sum((a / max(_length(a), 1e-7)) * (b / max(_length(b), 1e-7))), -1, 1))
    # mergekit's convention: a straight line only where the sine is 1e-8 or less.
    return _along_the_arc(t, a, b, cosine, straight=1 - cosine**2 <= 1e-16)


def _nuslerp(
    origin: Array,
    members: list[Array],
    *,
    weight: PerInput,
    nuslerp_row_wise: bool = False,
    nuslerp_flatten: bool = True,
) -> Array:
    first, second = (x - origin for x in members)
    weights = _per_input(weight, 2)
    # mergekit's convention: half way where the weights cancel.
    t = 0.5 if abs(sum(weights)) < 1e-6 else weights[1] / sum(weights)
    if nuslerp_flatten or origin.ndim == 0:
        return origin + _nuslerp_arc(t, first, second)
    # mergekit's convention: "row-wise" runs along the first axis, its contrary along the last.
    axis = 0 if nuslerp_row_wise else -1
    a, b = np.moveaxis(first, axis, -1), np.moveaxis(second, axis, -1)
    merged = np.empty_like(a)
    for index in np.ndindex(a.shape[:-1]):
        merged[index] = _nuslerp_arc(t, a[index], b[index])
    return origin + np.moveaxis(merged, -1, axis)


def _multislerp(
    origin: Array, members: list[Array], *, weight: PerInput, normalize_weights: bool = True, eps: float = 1e-8
) -> Array:
    """The weighted mean of the directions, brought to the weighted mean length.

    The method continues from there by the exponential map of the mean tangent at that direction m. As m is parallel to
    the sum of w·u, the tangents' sum, of w·(u - (u·m)m), is zero: what is left of the map is the cosine of eps.
    """
    if len(members) == 1:
        return members[0].copy()
    deltas = [x - origin for x in members]
    weights = np.array(_per_input(weight, len(members)))
    if normalize_weights:
        weights = weights / weights.sum()
    lengths = np.array([_length(d) for d in deltas])
    # mergekit's convention: eps is added to lengths, and to the length of the step.
    direction = _sum(w * d / (length + eps) for w, d, length in zip(weights, deltas, lengths, strict=True))
    if _length(direction) < eps:
        if len(members) > 2:
            raise ValueError("the weighted directions cancel")
        # mergekit's convention: two members that cancel are averaged linearly.
        return origin + weights[0] * deltas[0] + weights[1] * deltas[1]
    return origin + (weights @ lengths) * np.cos(eps) * direction / _length(direction)


# Task vectors: what members changed of the base


def _joined(base: Array, vectors: list[Array], weight: PerInput, lambda_: float, normalize: bool, elect: bool) -> Array:
    """Base plus lambda times the weighted sum of task vectors; with `elect`, only of entries with the elected sign."""
    weights = _per_input(weight, len(vectors))
    weighted = [w * v for w, v in zip(weights, vectors, strict=True)]
    agree = [np.ones(base.shape, dtype=bool)] * len(vectors)
    if elect:
        # mergekit's convention: a sum of zero elects plus.
        elected = np.where(_sum(weighted) >= 0, 1, -1)
        agree = [np.sign(v) == elected for v in weighted]
    total = _sum(v * a for v, a in zip(weighted, agree, strict=True))
    if normalize:
        share = _sum(w * a for w, a in zip(weights, agree, strict=True))
        # mergekit's convention: where the weights cancel (to 1e-8 without an election), nothing is divided.
        cancelled = share == 0 if elect else np.abs(share) < 1e-8
        total = total / np.where(cancelled, 1, share)
    return base + lambda_ * total


def _task_arithmetic(
    base: Array, members: list[Array], *, weight: PerInput, lambda_: float = 1.0, normalize: bool = False
) -> Array:
    return _joined(base, [x - base for x in members], weight, lambda_, normalize, elect=False)


def _magnitudes(vector: Array) -> npt.NDArray[np.float32]:
    # mergekit's convention: on the CPU magnitudes are ranked in single precision. Which of equal ones it keeps is open
    # (its sort is not stable); here it is the first ones of ties, and the last ones of breadcrumbs.
    return np.abs(vector).astype(np.float32).ravel()


def _mask(shape: tuple[int, ...], kept: npt.NDArray[np.intp]) -> Mask:
    mask = np.zeros(int(np.prod(shape)), dtype=bool)
    mask[kept] = True
    return mask.reshape(shape)


def _largest(vector: Array, density: float) -> Mask:
    # mergekit's convention: at least one entry, whatever the density above zero.
    count = vector.size if density >= 1 else 0 if density <= 0 else max(1, int(density * vector.size))
    return _mask(vector.shape, np.argsort(-_magnitudes(vector), kind="stable")[:count])


def _without_both_ends(vector: Array, density: float, gamma: float) -> Mask:
    # mergekit's convention: a density of one keeps the outliers too.
    if density >= 1:
        return np.ones(vector.shape, dtype=bool)
    # mergekit's convention: both counts are rounded down, and a gamma that leaves too few for the density gives way.
    count = int(density * vector.size)
    smallest = max(0, vector.size - count - int(gamma * vector.size))
    return _mask(vector.shape, np.argsort(_magnitudes(vector), kind="stable")[smallest : smallest + count])


def _trimmed(vector: Array, kept: Mask, rescale: bool) -> Array:
    trimmed = np.where(kept, vector, 0.0)
    before, after = np.abs(vector).sum(), np.abs(trimmed).sum()
    # mergekit's convention: rescaling restores the sum of magnitudes (not 1/density), unless one is below 1e-7.
    return trimmed * (before / after) if rescale and min(before, after) >= 1e-7 else trimmed


def _ties(
    base: Array,
    members: list[Array],
    *,
    weight: PerInput,
    density: PerInput = 1.0,
    lambda_: float = 1.0,
    normalize: bool = True,
    rescale: bool = False,
) -> Array:
    densities = _per_input(density, len(members))
    deltas = [x - base for x in members]
    vectors = [_trimmed(d, _largest(d, r), rescale) for d, r in zip(deltas, densities, strict=True)]
    return _joined(base, vectors, weight, lambda_, normalize, elect=True)


def _breadcrumbs(
    base: Array,
    members: list[Array],
    *,
    weight: PerInput,
    density: PerInput = 1.0,
    gamma: PerInput = 0.01,
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: bool = False,
    elect: bool = False,
) -> Array:
    densities, gammas = _per_input(density, len(members)), _per_input(gamma, len(members))
    deltas = [x - base for x in members]
    vectors = [
        _trimmed(d, _without_both_ends(d, r, g), rescale)
        for d, r, g in zip(deltas, densities, gammas, strict=True)
    ]  # fmt: skip
    return _joined(base, vectors, weight, lambda_, normalize, elect)


def _breadcrumbs_ties(base: Array, members: list[Array], **parameters: Any) -> Array:
    return _breadcrumbs(base, members, **parameters, elect=True)


def _sce(base: Array, members: list[Array], *, select_topk: float = 1.0) -> Array:
    """Select the entries that differ most among members, Calculate a weight per member, Erase minorities."""
    deltas = np.stack([x - base for x in members])
    if select_topk < 1:
        # Equal deltas have no variance: said by their range, as rounding would leave a little of one.
        varied = np.count_nonzero(np.ptp(deltas, axis=0))
        # mergekit's convention: a share of the entries that vary at all, the product taken in single precision.
        count = max(0, int(np.float32(varied) * np.float32(select_topk)))
        order = np.argsort(-deltas.var(axis=0).ravel(), kind="stable")
        deltas = deltas * _mask(base.shape, order[:count])
    energy = np.array([np.mean(d**2) for d in deltas])
    # mergekit's convention: members count alike where their mean squares sum to less than 1e-6.
    shares = energy / energy.sum() if energy.sum() >= 1e-6 else np.full(len(members), 1 / len(members))
    # mergekit's convention: a sum of zero elects plus.
    agree = np.sign(deltas) == np.where(deltas.sum(axis=0) >= 0, 1, -1)
    total = _sum(s * d * a for s, d, a in zip(shares, deltas, agree, strict=True))
    share = _sum(s * a for s, a in zip(shares, agree, strict=True))
    # mergekit's convention: agreeing shares below 1e-6 count as 1e-6.
    return base + total / np.maximum(share, 1e-6)


def _ram(base: Array, members: list[Array], *, epsilon: float = 1e-5) -> Array:
    """The mean over the members that changed an entry at all."""
    deltas = np.stack([x - base for x in members])
    active = np.abs(deltas) > epsilon
    return base + np.where(active, deltas, 0.0).sum(axis=0) / np.maximum(active.sum(axis=0), 1)


def _ramplus_tl(
    base: Array, members: list[Array], *, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5
) -> Array:
    """Merge as RAM; entries that only one member changed grow by r times its shared-to-own ratio, at most alpha."""
    deltas = np.stack([x - base for x in members])
    active = np.abs(deltas) > epsilon
    count = active.sum(axis=0)
    merged = base.copy()
    for delta, mine in zip(deltas, active, strict=True):
        own, shared = mine & (count == 1), mine & (count > 1)
        # mergekit's convention: epsilon is also the least divisor of the ratio.
        ratio = shared.sum() / max(own.sum(), epsilon)
        growth = 1 + r * min(ratio, alpha)
        merged = merged + np.where(own, growth * delta, 0.0) + np.where(shared, delta / np.maximum(count, 1), 0.0)
    return merged


# Model stock


def _rowwise_cosine(a: Array, b: Array, floor: float) -> Array:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    product = np.maximum(lengths, floor)
    return np.clip(np.sum(a * b, axis=1) / np.where(product > 0, product, 1), -1, 1)


def _stock(base: Array, members: list[Array], filter_wise: bool, floor: float) -> Array:
    """Between base and mean, at the point N·c / (1 + (N - 1)·c) that the mean cosine c of the pairs calls for."""
    if len(members) < 2:
        raise ValueError("model stock needs two members or more")
    # mergekit's convention: filters are vectors along the last axis; a vector is one filter.
    rows = (-1, base.shape[-1]) if filter_wise and base.ndim > 1 else (1, -1)
    deltas = [(x - base).reshape(rows) for x in members]
    cosine = np.mean([_rowwise_cosine(a, b, floor) for a, b in combinations(deltas, 2)], axis=0)
    count = len(members)
    denominator = 1 + (count - 1) * cosine
    # mergekit's convention: the base itself where the denominator vanishes.
    singular = np.abs(denominator) < 1e-6
    t = np.where(singular, 0.0, count * cosine / np.where(singular, 1.0, denominator))
    return base + (t[:, None] * np.mean(deltas, axis=0)).reshape(base.shape)


def _model_stock(base: Array, members: list[Array], *, filter_wise: bool = False) -> Array:
    # mergekit's convention: products of lengths below 1e-6 count as 1e-6, which lessens the cosine of short deltas.
    return _stock(base, members, filter_wise, floor=1e-6)


# Whole models, as the papers have it


def model_stock_paper(base: np.ndarray, members: list[np.ndarray], filter_wise: bool) -> Array:
    """One tensor, with the cosine itself; with a delta of zero it is zero."""
    inputs = [np.asarray(x, dtype=np.float64) for x in members]
    return np.asarray(_stock(np.asarray(base, dtype=np.float64), inputs, filter_wise, floor=0.0))


def _concatenated(model: dict[str, np.ndarray], names: list[str]) -> Array:
    return np.concatenate([np.asarray(model[name], dtype=np.float64).ravel() for name in names])


def ties_paper(
    base: dict[str, np.ndarray],
    members: list[dict[str, np.ndarray]],
    density: PerInput,
    weight: PerInput,
    lambda_: float,
    normalize: bool,
) -> dict[str, Array]:
    """TIES with one threshold per member over its whole task vector, and zero sums with the model's majority sign."""
    names = list(base)
    start = _concatenated(base, names)
    weighted, weights = [], _per_input(weight, len(members))
    for model, w, d in zip(members, weights, _per_input(density, len(members)), strict=True):
        vector = _concatenated(model, names) - start
        threshold = np.sort(np.abs(vector))[-max(1, int(d * vector.size))]
        weighted.append(np.where(np.abs(vector) >= threshold, w * vector, 0.0))
    elected = np.sign(_sum(weighted))
    majority = np.sign(elected.sum())
    elected[elected == 0] = majority if majority != 0 else 1.0
    agree = [np.sign(v) == elected for v in weighted]
    total = _sum(v * a for v, a in zip(weighted, agree, strict=True))
    if normalize:
        share = _sum(w * a for w, a in zip(weights, agree, strict=True))
        total = total / np.where(share == 0, 1, share)
    ends = np.cumsum([np.size(base[name]) for name in names])
    parts = np.split(start + lambda_ * total, ends[:-1])
    return {name: part.reshape(np.shape(base[name])) for name, part in zip(names, parts, strict=True)}


AMONG_MEMBERS: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "slerp": _slerp,
    "karcher": _karcher,
    "nearswap": _nearswap,
    "arcee_fusion": _arcee_fusion,
    "passthrough": _passthrough,
}
AROUND_AN_ORIGIN: dict[str, Callable[..., Any]] = {"nuslerp": _nuslerp, "multislerp": _multislerp}
AROUND_THE_BASE: dict[str, Callable[..., Any]] = {
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
    "breadcrumbs": _breadcrumbs,
    "breadcrumbs_ties": _breadcrumbs_ties,
    "model_stock": _model_stock,
    "sce": _sce,
    "ram": _ram,
    "ramplus_tl": _ramplus_tl,
}
