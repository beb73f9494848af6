"""Skeleton-based recognition on an untrusted node, decided inside a Trusty enclave."""

import warnings

# JetPack 5 has Python 3.8, and cryptography says at every import what its operator cannot change there: the one line
# that he is to read would be the second.
warnings.filterwarnings("ignore", message=r"Python 3\.\d+ is no longer supported by the Python core team")

__version__ = "0.1.0"
