"""Compiling the indexer's kernels into their cache, so that no later start has to: for installers.

Nothing goes in and nothing comes out: each kernel is called once, with empty arrays of the types
that it is called with later.
"""

import numpy as np
import pyarrow as pa

from indexer.parse.events import STATE_SIZE
from indexer.parse.messages import replace_invalid
from indexer.parse.parse import Pieces, parse
from indexer.schema import SEGMENT_SCHEMA
from indexer.segment.conserve import row_hashes
from indexer.segment.held_filters import HeldFilters
from indexer.segment.token_filter import BLOCK_BYTES, Place, WholeFilter
from indexer.segment.tokens import TokenFilterWriter


def compile_kernels() -> None:
    """Call each kernel once."""
    zeros = np.zeros(0, np.int64)
    flags = zeros.astype(np.bool_)
    parse(
        b"",
        Pieces(
            starts=np.zeros(1, np.int64),
            file_start=zeros,
            format=zeros.astype(np.int8),
            pattern=zeros.astype(np.int16),
            open_before=zeros.astype(np.uint8),
            torn_before=flags,
            continues=flags,
            state_before=np.zeros((0, STATE_SIZE), np.int64),
            read_time_ns=zeros,
        ),
    )
    starts, text = np.zeros(1, np.int32), np.zeros(0, np.uint8)
    replace_invalid(text, starts, zeros, text, starts, text)
    tokens = TokenFilterWriter()
    tokens.append(pa.chunked_array([["a token " * 1000]]))  # enough for a block
    tokens.finish(0)
    filters = HeldFilters(1 << 10)
    filters.add("", WholeFilter(Place(0, 1, 1, 0, 1.0), bytes(BLOCK_BYTES)))
    filters.ask([""], [b"token"])
    row_hashes(SEGMENT_SCHEMA.empty_table())
