"""A low-rank term that mends what matters to the layer's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tersor.formats import LowRank

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tersor.calibrate import Statistics


def low_rank(left: NDArray[np.float32], statistics: Statistics, rank: int, *, dtype: str = "int8") -> LowRank:
    """The term of this rank that lowers the error of the outputs most. Liu et al., EoRA, arXiv:2410.21271.

    left: [N, K], W less what is stored. dtype: "int8" (a scale for each of the `rank` pairs), "fp16" or "bf16".
    Raises ValueError (a rank beyond 1..min(N, K), dtype).
    """
    return LowRank.of_factors(*factors(left, statistics, rank), dtype=dtype)


def factors(
    left: NDArray[np.float32], statistics: Statistics, rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """u [N, rank] and v [rank, K] of the least tr((E - u v) H (E - u v)^T), H the mean of x x^T.

    The paper goes through E Q Lambda^(1/2) of H = Q Lambda Q^T and divides by the root again. Its left singular vectors
    U are the eigenvectors of E H E^T, and its term is U U^T E: neither a root nor an inverse of H is needed, so that H
    may be singular. Columns of U are in double precision; LAPACK's last bits depend on the machine.
    """
    rows, columns = left.shape
    if not 1 <= rank <= min(rows, columns):
        raise ValueError(f"rank {rank}, 1..{min(rows, columns)} are possible for {[rows, columns]}")
    # Of many rows the space that the columns of E span is enough.
    basis, inner = np.linalg.qr(left.astype(np.float64)) if rows > columns else (None, left.astype(np.float64))
    gram = inner @ statistics.hessian.astype(np.float64) @ inner.T
    vectors = np.linalg.eigh((gram + gram.T) / 2)[1][:, : -rank - 1 : -1]
    v = vectors.T @ inner
    u = vectors if basis is None else basis @ vectors
    root = np.sqrt(np.linalg.norm(v, axis=1))  # both factors of a pair are of one norm: int8 and fp16 hold them alike
    safe = np.where(root > 0, root, 1)
    return (u * root).astype(np.float32), (v / safe[:, None]).astype(np.float32)
