"""Regression-based reconstruction (He et al., ICCV 2017): LASSO chooses, least squares refits.

Layer by layer, front to back: the outputs of the unpruned layer are regressed on what each channel
adds to them; those with a coefficient stay, and the layer's weights on them are fitted anew.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator
from convnext_study.studies.pruning.apply import ImageSize, mask
from convnext_study.studies.pruning.groups import Group, check_widths
from convnext_study.studies.pruning.methods.samples import (
    Reader,
    added,
    draw_places,
    kernels,
    outputs,
    patches,
    reader_of,
)

POSITIONS = 10  # of each image
MOST = 20_000  # outputs that the LASSO sees
SLACK = 1.1  # how many times the target may stay
STEPS = 40  # of the bisection


def prune(
    net: nn.Module,
    groups: Sequence[Group],
    widths: Mapping[str, int],
    images: Sequence[Tensor],
    image_size: ImageSize,
    *,
    seed: int = 0,
) -> dict[str, list[int]]:
    """Mask the layers named in ``widths``, in place, and say which channels stay.

    Args:
        net: a trained network; layers that read kept channels get new weights.
        groups: its channels, as `apply.groups_of` finds them, in the network's order.
        widths: how many channels of each layer stay, at least; at most 1.1 times as many do.
        images: batches (N, channels, height, width); the paper takes 500.
        image_size: of the images.
        seed: of the sampled positions.

    Raises:
        PruningError: a layer that is unknown or would be empty, or whose channels no single layer
            reads.
    """
    whole, kept = copy.deepcopy(net), {}
    for group, target in check_widths(widths, groups):
        draw = generator(fold_in(seed, "regression", group.name))
        reader = reader_of(net, group)
        places = draw_places(net, reader, images, POSITIONS, draw)
        read = patches(net, reader, images, places).double()
        wanted = outputs(whole, reader_of(whole, group), images, places).double()
        # Patches and filters at random where there are more than the LASSO needs.
        pairs = torch.randperm(wanted.numel(), generator=draw)[:MOST]
        rows, filters = pairs // wanted.shape[1], pairs % wanted.shape[1]
        parts = added(read[rows], kernels(reader), filters)
        kept[group.name] = choose(parts, wanted.flatten()[pairs], target)
        mask(net, {group.name: kept[group.name]}, image_size)
        _refit(reader, read, wanted, kept[group.name])
    return kept


def choose(parts: Tensor, wanted: Tensor, target: int) -> list[int]:
    """The columns with a coefficient in the LASSO of ``wanted`` on ``parts``, ascending.

    The penalty is found by bisection, so that there are ``target`` of them to 1.1 times as many;
    where no penalty gives that, the ``target`` largest at the last one.
    """
    if target >= parts.shape[1]:
        return list(range(parts.shape[1]))
    x, y = parts.numpy(), wanted.numpy()
    # Above this penalty nothing is left.
    low, high = 0.0, float(np.abs(x.T @ y).max()) / len(y)
    coefficients = np.zeros(x.shape[1])
    for _ in range(STEPS):
        middle = (low + high) / 2
        found = _lasso(x, y, middle)
        count = int(np.count_nonzero(found))
        if count >= target:
            low, coefficients = middle, found
            if count <= SLACK * target:
                return np.flatnonzero(found).tolist()
        else:
            high = middle
    order = np.argsort(-np.abs(coefficients), kind="stable")
    return sorted(order[:target].tolist())


def _lasso(x: Any, y: Any, penalty: float) -> Any:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # which are zero is known before that
        return Lasso(alpha=penalty, fit_intercept=False, max_iter=1000).fit(x, y).coef_


def _refit(reader: Reader, read: Tensor, wanted: Tensor, kept: list[int]) -> None:
    """Weights on the kept channels whose outputs are nearest to the wanted ones."""
    inputs = read[:, kept].flatten(1)
    fitted = torch.linalg.lstsq(inputs, wanted, driver="gelsd").solution
    with torch.no_grad():
        weight = kernels(reader)
        shape = (weight.shape[0], len(kept), *weight.shape[2:])
        weight[:, kept] = fitted.T.reshape(shape).to(weight)
