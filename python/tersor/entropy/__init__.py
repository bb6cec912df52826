"""Entropy coding: integer tables and the coders that use them. The typed door to `csrc/entropy`; pages: docs/formats/.

table = Table.from_counts(np.bincount(symbols, minlength=256))
data = encode(symbols, table)
assert (decode(data, table) == symbols).all()

tables = TableSet.gaussian(scales)
data = encode_indexed(latents, scale_indexes, tables)
assert (decode_indexed(data, scale_indexes, tables) == latents).all()
"""

from tersor.entropy import adaptive, bitpack, combination, gap, golomb, huffman, range
from tersor.entropy.indexed import Decoder, Encoder, decode_indexed, encode_indexed
from tersor.entropy.rans8 import decode, encode
from tersor.entropy.table import Table
from tersor.entropy.table_set import TableSet
from tersor.entropy.tokens import TokenCoder

__all__ = [
    "Decoder",
    "Encoder",
    "Table",
    "TableSet",
    "TokenCoder",
    "adaptive",
    "bitpack",
    "combination",
    "decode",
    "decode_indexed",
    "encode",
    "encode_indexed",
    "gap",
    "golomb",
    "huffman",
    "range",
]
