"""The low-bit linear layer beside its roofs and its peers: `tersor bench gemm`.

A point is a format, a way to read x, a shape, a number of tokens and of threads. Every round takes the roofs (reads of
memory, the multipliers' peak), ours and the peers in turn; weights are cold, read from copies of 256 MB in all. What is
wanted of each point stands in `goals.py`, and every result says whether it is met. Imports nothing: the command line
reads the options of `points.py` whatever it is asked.
"""
