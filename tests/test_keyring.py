"""The owner's key ring: whoever finds the file learns nothing, and whoever alters it is found out."""

import os

import pytest

from edged.errors import KeyRefused, MissingInput, UsageError
from edged.trust import keyring

PASSPHRASE = b"correct horse battery"
CHEAP = 1 << 4


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """scrypt as it is meant costs half a second each time."""
    monkeypatch.setattr(keyring, "seal", lambda ring, passphrase, seal=keyring.seal: seal(ring, passphrase, CHEAP))


@pytest.fixture
def ring():
    return keyring.generate()


@pytest.fixture
def path(tmp_path, ring):
    keyring.create(str(tmp_path / "owner.ring"), ring, PASSPHRASE)
    return str(tmp_path / "owner.ring")


def test_what_was_put_in_comes_out(path, ring):
    assert keyring.open_ring(path, PASSPHRASE) == ring
    assert keyring.inspect(path) == ring.public
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_the_file_tells_no_secret(path, ring):
    with open(path, "rb") as file:
        content = file.read()
    assert ring.public.verify_key in content
    assert ring.seed not in content and ring.model_keys[0][1] not in content


def test_another_passphrase_is_refused(path):
    with pytest.raises(KeyRefused, match="the passphrase is another one, or the ring was altered"):
        keyring.open_ring(path, PASSPHRASE + b"!")


def test_every_altered_byte_is_refused(path):
    with open(path, "rb") as file:
        content = bytearray(file.read())
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with open(path, "wb") as file:
            file.write(changed)
        if _cost_of(changed) in (None, CHEAP):  # one that asks for another cost is refused, too, but takes its time
            with pytest.raises(KeyRefused):
                keyring.open_ring(path, PASSPHRASE)


def _cost_of(content):
    try:
        return keyring._head(bytes(content), "")[0].cost
    except KeyRefused:
        return None


def test_a_ring_that_asks_for_all_of_the_memory_is_refused_at_once(path, ring):
    seal = keyring.seal(ring, PASSPHRASE)
    head = keyring.cbor2.loads(seal[len(keyring.MAGIC):])
    for cost in (1 << 30, -1, 3, 1.0, None):
        with open(path, "wb") as file:
            file.write(keyring.MAGIC + keyring.cbor2.dumps([cost] + head[1:], canonical=True)
                       + keyring.cbor2.dumps(bytes(100)))
        with pytest.raises(KeyRefused, match="not a key ring"):
            keyring.open_ring(path, PASSPHRASE)


@pytest.mark.parametrize("cut", [0, 10, 40, -1])
def test_a_damaged_ring_points_to_the_backup(path, cut):
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[:cut])
    with pytest.raises(KeyRefused, match="put the backup in its place"):
        keyring.inspect(path)


def test_a_copy_of_the_file_is_a_backup(path, ring, tmp_path):
    with open(path, "rb") as file:
        copy = file.read()
    os.unlink(path)
    restored = tmp_path / "restored"
    restored.write_bytes(copy)
    restored.chmod(0o600)
    assert keyring.open_ring(str(restored), PASSPHRASE) == ring


def test_a_new_ring_never_takes_the_place_of_another(path, ring):
    with pytest.raises(KeyRefused, match="is there already"):
        keyring.create(path, keyring.generate(), PASSPHRASE)
    assert keyring.open_ring(path, PASSPHRASE) == ring


def test_a_renewed_ring_keeps_the_older_keys(path, ring):
    keyring.replace(path, ring.renewed(), PASSPHRASE)
    again = keyring.open_ring(path, PASSPHRASE)
    assert again.model_keys[0] == ring.model_keys[0] and len(again.model_keys) == 2
    assert again.model_key() == again.model_keys[1]
    assert again.model_key(ring.model_keys[0][0]) == ring.model_keys[0]
    with pytest.raises(KeyRefused, match="the ring has no model key 00"):
        again.model_key(bytes(16))


def test_a_ring_behind_a_link_stays_the_one_ring(path, ring, tmp_path):
    link = str(tmp_path / "link")
    os.symlink(path, link)
    keyring.replace(link, ring.renewed(), PASSPHRASE)
    assert os.path.islink(link) and keyring.open_ring(path, PASSPHRASE) == keyring.open_ring(link, PASSPHRASE)
    assert len(keyring.inspect(path).key_ids) == len(ring.public.key_ids) + 1


def test_what_an_earlier_try_left_is_not_written_over(path, ring):
    open(path + ".new", "w").close()
    with pytest.raises(UsageError, match="is left of an earlier try"):
        keyring.replace(path, ring.renewed(), PASSPHRASE)
    assert keyring.open_ring(path, PASSPHRASE) == ring


def test_a_ring_or_passphrase_that_others_may_read_is_refused(path, tmp_path):
    os.chmod(path, 0o640)
    with pytest.raises(KeyRefused, match="chmod 600"):
        keyring.open_ring(path, PASSPHRASE)
    words = tmp_path / "words"
    words.write_bytes(PASSPHRASE)
    words.chmod(0o644)
    with pytest.raises(KeyRefused, match="chmod 600"):
        keyring.read_passphrase(str(words))


@pytest.mark.parametrize("content, good", [
    (PASSPHRASE + b"\nnote", True), (PASSPHRASE + b"\r\n", True), (b"short", False), (b"", False),
    (b"\n" + PASSPHRASE, False)])
def test_a_passphrase_is_the_first_line_and_not_short(tmp_path, content, good):
    words = tmp_path / "words"
    words.write_bytes(content)
    words.chmod(0o600)
    if good:
        assert keyring.read_passphrase(str(words)) == PASSPHRASE
    else:
        with pytest.raises(KeyRefused, match="12 to 1024 bytes"):
            keyring.read_passphrase(str(words))


def test_a_ring_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(MissingInput):
        keyring.inspect(str(tmp_path / "none"))
