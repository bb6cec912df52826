"""Sizes as people write them."""

import argparse

import pytest

from tersor.cli.text import amount, parse_size


def test_sizes_are_read():
    for text, size in {
        "12MiB": 12 << 20,
        "12 mib": 12 << 20,
        "1.5GiB": 3 << 29,
        "90.9 MB": 90_900_000,
        ".3kB": 300,
        "1500": 1500,
        "1500B": 1500,
        " 2 TB ": 2 * 10**12,
        "0.0015 KiB": 1,
        "0.1 MB": 100_000,  # which no float of 0.1 times a million need give
    }.items():
        assert parse_size(text) == size, text


def test_what_amount_writes_is_read_again():
    for size in (0, 7, 999, 1500, 90_900_000, 1_230_000_000_000):
        assert parse_size(amount(size)) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "12M", "12ib", "-3MB", "1e6", "3.5 bpw", "1,5 MB", "12MiBs", "٣MB", "1.MB"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"a size like 12MiB, 90\.9 MB or 1500"):
        parse_size(text)
