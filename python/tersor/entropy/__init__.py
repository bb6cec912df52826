"""Entropy coding: integer tables and the coders that use them. The typed door to `csrc/entropy`; pages: docs/formats/.

table = Table.from_counts(np.bincount(symbols, minlength=256))
data = encode(symbols, table)
assert (decode(data, table) == symbols).all()
"""

from tersor.entropy import adaptive, huffman, range
from tersor.entropy.rans8 import decode, encode
from tersor.entropy.table import Table

__all__ = ["Table", "adaptive", "decode", "encode", "huffman", "range"]
