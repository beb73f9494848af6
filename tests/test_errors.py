"""The error tree gives every error its exit code."""

import pytest

from edged import errors

DOCUMENTED = {
    "UsageError": 2, "PackageError": 65, "ShapeError": 65, "MissingInput": 66, "CameraError": 69,
    "AcceleratorError": 69, "SpoolError": 69, "BusError": 69, "ServerError": 69,
    "EnclaveError": 69, "VerificationFailed": 76, "KeyRefused": 77, "ConfigError": 78,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_an_error_has_its_documented_exit_code(name):
    assert issubclass(getattr(errors, name), errors.EdgedError)
    assert getattr(errors, name).exit_code == DOCUMENTED[name]


def test_an_enclave_error_quotes_its_status():
    error = errors.VerificationFailed("product refused", 7)
    assert error.status == 7 and "status 7" in str(error)
