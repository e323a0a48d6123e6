"""Runs of equal values in columns that lie side by side, such as the rows of one file in a segment.

Arrays or a table go in; out comes where each run starts. Equal values count as two runs where
others lie between them, so only of sorted columns each value is one run.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def run_starts(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Return where a value differs from the one before in any of the columns, and the beginning."""
    is_start = np.zeros(len(columns[0]), np.bool_)
    is_start[:1] = True
    for column in columns:
        is_start[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(is_start)


def runs(rows: pa.Table) -> tuple[NDArray[np.int64], list[tuple[Any, ...]]]:
    """Return where each run of equal rows starts, and what its rows are.

    The words of a column that is a dictionary must be those of one.
    """
    if not rows.num_rows:
        return np.zeros(0, np.int64), []
    rows = rows.combine_chunks()
    starts = run_starts(*(_codes(column.chunk(0)) for column in rows.columns))
    first = rows.take(pa.array(starts))
    return starts, list(zip(*(column.to_pylist() for column in first.columns), strict=True))


def _codes(array: pa.Array) -> NDArray[Any]:
    """Return numbers that are equal where values are."""
    if not pa.types.is_dictionary(array.type) and not pa.types.is_integer(array.type):
        array = array.dictionary_encode()
    numbers = array.indices if pa.types.is_dictionary(array.type) else array
    codes: NDArray[Any] = numbers.to_numpy(zero_copy_only=False)
    return codes
