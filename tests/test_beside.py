"""What a camera and the bridge read while one agreement follows another, whatever of it is there at that moment."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edged import beside
from edged.beside import CameraKeys, Paired, key_path, next_path
from edged.errors import ConfigError, KeyRefused, MissingInput, PackageError, VerificationFailed
from edged.offload import link
from edged.trust.agreement import sign
from test_agreement import MO, QDO, SIGNED, VALID

AFTER = replace(VALID, number=8, data_key=b"e" * 16)
OLD, NEW = b"o" * 32, b"n" * 32


class Files:
    """A node's files, of one camera, under VALID alone."""

    def __init__(self, folder):
        self.agreement, self.key = folder / "agreement.cose", folder / "gate.key"
        self.next, self.staged = next_path(self.agreement), key_path(self.key, AFTER.digest)
        self.agreement.write_bytes(SIGNED)
        self.secret(self.key, OLD)
        self.package = folder / "model.pkg"
        self.package.write_bytes(b"package")
        self.camera = SimpleNamespace(key=self.key, agreement=None)
        self.config = SimpleNamespace(enclave=SimpleNamespace(agreements=(self.agreement,), package=self.package))
        self.keys = CameraKeys(self.config, self.camera)

    @staticmethod
    def secret(path, content):
        with open(os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)

    def stage(self):
        self.secret(self.staged, NEW)
        self.next.write_bytes(sign(AFTER.encode(), MO, QDO))
        return self

    def half_settle(self):
        self.secret(self.key, NEW)
        return self

    def settle(self):
        self.half_settle()
        os.replace(str(self.next), str(self.agreement))
        self.staged.unlink()
        return self


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


BEFORE_IT, AFTER_IT = Paired(VALID.digest, OLD), Paired(AFTER.digest, NEW)


@pytest.mark.parametrize("had", [None, VALID.digest])
def test_until_the_named_agreement_is_over_its_key_is_what_lies_there(files, had):
    assert files.keys.read(had) == BEFORE_IT
    assert files.stage().keys.read(had) == BEFORE_IT
    assert files.half_settle().keys.read(had) == AFTER_IT  # the named one's key is gone
    assert files.settle().keys.read(had) == AFTER_IT


def test_whoever_went_over_stays_there(files):
    for change in (files.stage, files.half_settle, files.settle):
        change()
        assert files.keys.read(AFTER.digest) == AFTER_IT
        assert files.keys.under(AFTER.digest) == NEW


def test_what_does_not_follow_any_more_is_left(files):
    files.stage().next.unlink()
    assert files.keys.read(AFTER.digest) == BEFORE_IT  # and the staged key that was left behind is none
    with pytest.raises(KeyRefused, match="no key for the agreement"):
        files.keys.under(AFTER.digest)


def test_without_its_staged_key_a_camera_does_not_fall_back_to_an_agreement_that_may_be_over(files):
    files.stage().staged.unlink()
    with pytest.raises(KeyRefused, match="gate.key.{}: no key .*run `edgectl rotate`".format(AFTER.digest.hex()[:16])):
        files.keys.read(AFTER.digest)
    assert files.keys.read() == BEFORE_IT


@pytest.mark.parametrize("digest", [bytes(32), AFTER.digest])
def test_there_is_no_key_under_an_agreement_that_does_not_lie_there(files, digest):
    with pytest.raises(KeyRefused, match="no key for the agreement"):
        files.keys.under(digest)


def test_half_settled_nobody_takes_the_new_key_for_the_old_agreements(files):
    with pytest.raises(KeyRefused, match="no key for the agreement"):
        files.stage().half_settle().keys.under(VALID.digest)


@pytest.mark.parametrize("spoil", [
    lambda files: files.next.write_bytes(b"nonsense"), lambda files: files.staged.chmod(0o644),
    lambda files: files.secret(files.staged, b"short"), lambda files: (files.next.unlink(), files.next.mkdir()),
], ids=["next", "mode", "length", "folder"])
def test_a_camera_starts_under_the_named_agreement_whatever_is_wrong_with_what_is_to_follow(files, spoil):
    spoil(files.stage())
    assert files.keys.read() == files.keys.read(VALID.digest) == BEFORE_IT


@pytest.mark.parametrize("spoil, error, match", [
    (lambda files: files.key.unlink(), MissingInput, "gate.key: No such file"),
    (lambda files: files.key.chmod(0o640), KeyRefused, "chmod 600"),
    (lambda files: files.agreement.unlink(), MissingInput, "agreement.cose: No such file"),
    (lambda files: files.agreement.write_bytes(b""), PackageError, "agreement.cose: "),
    (lambda files: files.agreement.write_bytes(SIGNED[:-1] + bytes([SIGNED[-1] ^ 1])), VerificationFailed,
     "agreement.cose: .*signature"),
])
def test_what_is_named_and_not_usable_is_an_error(files, spoil, error, match):
    spoil(files)
    with pytest.raises(error, match=match):
        files.keys.read()


def test_a_key_is_not_shown(files):
    assert OLD.hex() not in repr(files.keys.read()) and repr(OLD) not in repr(files.keys.read())


# The bridge.


@pytest.mark.parametrize("moment", range(4))
def test_a_bridge_that_reads_while_the_files_are_replaced_misses_no_agreement(files, monkeypatch, moment):
    """Else it would put the old one in force, whose end the city was told."""
    files.stage()
    reads = []

    def read_agreement(path):
        if len(reads) == moment:
            files.settle()
        reads.append(path)
        return beside.read_agreement(path)

    monkeypatch.setattr(link, "read_agreement", read_agreement)
    papers = link.read_papers(files.config)
    paper, = papers.agreements.values()
    assert AFTER.digest in (paper.agreement.digest, paper.following and paper.following.agreement.digest)
    assert papers.faults == {}


def test_what_cannot_follow_is_a_fault_and_stays_where_it_is(files):
    files.next.write_bytes(sign(replace(VALID, number=6).encode(), MO, QDO))
    papers = link.read_papers(files.config)
    assert papers.agreements[0].following is None
    assert "agreement.cose.next: agreement 6 cannot follow agreement 7" in str(papers.faults[0])
    with pytest.raises(ConfigError, match="cannot follow"):
        beside.require_follows(files.next, replace(VALID, number=7), VALID)
