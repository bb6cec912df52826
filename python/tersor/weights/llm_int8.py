"""Columns that stay in 16 bits because their inputs are large."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.formats import Outliers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics


def outlier_columns(weight: NDArray[Any], statistics: Statistics, share: float) -> Outliers:
    """The weights of the columns whose inputs have the largest mean square. Dettmers et al., LLM.int8, NeurIPS 2022.

    weight: [N, K]. share: of the columns, rounded up. The paper takes those with an input beyond 6, as x comes; what is
    stored must choose before. Values are fp16.
    """
    count = math.ceil(round(share * weight.shape[1], 6))  # 0.07 * 100 is above 7
    mask = np.zeros(weight.shape, np.bool_)
    mask[:, np.argsort(-np.diag(statistics.hessian), kind="stable")[:count]] = True
    return Outliers.of_mask(weight, mask)
