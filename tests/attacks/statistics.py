"""Tests for uniform words whose false alarms are bounded beforehand.

Every threshold follows from T alone, by an inequality that holds (or, for Pearson's statistic, holds in the limit that
many hundred words a bin come close to); none was tuned. One test on one stream errs with probability below about
e^-T = 4e-18, so ten thousand of them in a run, and a run every minute for a century, may expect not one false alarm.
"""

import math

import numpy as np

T = 40.0
MEASURED_WORDS = 1 << 16  # fewer say little: 256 in a bin of the bytes


def chi_square_limit(freedom):
    """P(chi-square >= limit) <= e^-T: Laurent & Massart 2000, lemma 1."""
    return freedom + 2 * math.sqrt(freedom * T) + 2 * T


def balance_limit(count):
    """Of a sum of ``count`` independent fair signs: P(|sum| >= limit) <= 2 e^-T (Hoeffding)."""
    return math.sqrt(2 * T * count)


def words_of(arrays):
    return np.concatenate([np.ascontiguousarray(array, np.uint32).reshape(-1) for array in arrays])


def byte_counts(words):
    """(4, 256): how often each value stands at each byte of a word."""
    lanes = words.view(np.uint8).reshape(-1, 4)
    return np.stack([np.bincount(lanes[:, lane], minlength=256) for lane in range(4)])


def check_uniform(words, what):
    """Bytes at each position, bits at each position, and the same of the differences of neighbours."""
    assert len(words) >= MEASURED_WORDS, "{}: {} words are too few".format(what, len(words))
    apart = words[1::2] - words[:-1:2]  # every second one: they are independent
    for name, seen in (("words", words), ("differences", apart)):
        expected = len(seen) / 256
        statistic = ((byte_counts(seen) - expected) ** 2 / expected).sum(axis=1)
        assert (statistic < chi_square_limit(255)).all(), "{}: bytes of {}: {}".format(what, name, statistic)
        signs = signs_of(seen).sum(axis=0)
        assert (np.abs(signs) < balance_limit(len(seen))).all(), "{}: bits of {}: {}".format(what, name, signs)


def check_same_distribution(one, other, what):
    """Two streams of equal length: Pearson's two-sample statistic of their bytes."""
    count = min(len(one), len(other))
    a, b = byte_counts(one[:count]), byte_counts(other[:count])
    statistic = ((a - b) ** 2 / np.maximum(a + b, 1)).sum(axis=1)
    assert (statistic < chi_square_limit(255)).all(), "{}: {}".format(what, statistic)


def signs_of(words, bits=32):
    """(n, bits) of -1 and 1."""
    return ((words[:, None] >> np.arange(bits, dtype=words.dtype)) & 1).astype(np.int64) * 2 - 1


def check_uncorrelated(words, secret, what):
    """No bit of a word agrees with any bit of the int16 secret behind it more often than not.

    Whatever the secret is, uniform words that do not depend on it give sums of fair signs.
    """
    seen, hidden = signs_of(words), signs_of(np.ascontiguousarray(secret, np.int16).view(np.uint16).reshape(-1), 16)
    agreement = np.abs(seen.T.astype(np.float64) @ hidden.astype(np.float64))
    assert agreement.max() < balance_limit(len(words)), "{}: {}".format(what, agreement.max())


def check_nothing_in_common(one, other, what):
    """Two streams of words: differences uniform, hardly a word equal in its place, no 16 bytes in both.

    Of n independent uniform words k are equal in place with probability below (n / 2^32)^k / k!: for a million
    words and k = 8, 2e-34. 16 bytes: n^2 / 2^128.
    """
    assert one.shape == other.shape, what
    equal = int((one == other).sum())
    assert equal < 8, "{}: {} of {} words are equal".format(what, equal, len(one))
    assert not common_blocks(one, other), "{}: 16 bytes occur in both".format(what)
    if len(one) >= MEASURED_WORDS:
        check_uniform(one - other, what + ", differences")


# Odd, random: equal windows always have equal hashes, other ones with probability 2^-64 and are then compared.
_HASH = np.array([0xF58C6A4C0D3D6E2B, 0x91B5A2E7C34F1D67], np.uint64)


def windows(words):
    """Hashes (uint64) of every 16 bytes that begin at a word: (n - 3,)."""
    pairs = words[:-1].astype(np.uint64) | words[1:].astype(np.uint64) << np.uint64(32)
    return pairs[:-2] * _HASH[0] + pairs[2:] * _HASH[1]


def common_blocks(one, other):
    """16-byte windows that occur in both streams: a list of pairs of places."""
    first, second = windows(one), windows(other)
    order = np.argsort(first)
    at = np.minimum(np.searchsorted(first, second, sorter=order), len(first) - 1)
    places = np.nonzero(first[order[at]] == second)[0]
    return [(order[at[place]], place) for place in places
            if np.array_equal(one[order[at[place]]:][:4], other[place:place + 4])]
