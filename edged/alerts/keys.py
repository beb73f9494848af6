"""The city's keys, and its subscriber's configuration.

    make_keys  qdo.key       Ed25519 seed: signs agreements      data.key, data.id    camera keys come of it
               curve.key     of the subscriber's socket          alert-NAME.key, .id  one for each recipient
               public.toml   what the model's owner and the nodes may know of all that, with the current ids
    renew      the data key and the alert keys once more, beside the former ones (alerts/keyfiles.py); public.toml
    retire     takes former keys of dropped agreements away
    init       subscriber.toml, nodes.toml, agreement-NUMBER.cose, and a bundle for a node (alerts/bundle.py)

All files are readable by their user alone, all of a call are written or none, and no key is written over.
"""

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Collection, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged import strict
from edged.alerts import bundle as bundles
from edged.alerts import cityconfig, keyfiles
from edged.alerts.bundle import Bundle
from edged.alerts.keyfiles import KeyFile
from edged.alerts.nodes import FILE as NODES_FILE
from edged.alerts.nodes import HEAD as NODES_HEAD
from edged.alerts.terms import named_key
from edged.bus import generate_keys
from edged.enclave import wire
from edged.enclave.slots import KEY_SIZES
from edged.enclave.wire import KeyKind
from edged.errors import ConfigError, KeyRefused, UsageError
from edged.placing import SHARED, Placing, replace_file, undo
from edged.secret import read_secret
from edged.trust.agreement import Agreement, ModelTerms, Recipient, Rule, open_agreement, sign

PUBLIC_FILE = "public.toml"
# Of former keys: why they stay, and what to do.
KEPT = ("no agreement that was adopted and dropped here names them: `edged-city adopt` the one that does, and drop it "
        "once it ended; where none was ever signed, delete them by hand")
_OF_A_RULE = wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SCORE


class PublicRecipient(NamedTuple):
    """rcpt, key_id : 16 bytes"""

    name: str
    rcpt: bytes
    key_id: bytes


@dataclass(frozen=True)
class Public:
    """qdo : verification key, 32 bytes      curve : Z85      data_key_id : 16 bytes"""

    qdo: bytes
    curve: str
    data_key_id: bytes
    recipients: Tuple[PublicRecipient, ...]


def make_keys(folder: str, recipients: Sequence[str] = ("city",), alert_key_bytes: int = 32,
              data_key_bytes: int = 32) -> Public:
    """Draw all keys of a city into a folder that is new or empty. Raises UsageError, KeyRefused, OSError."""
    for kind, size in ((KeyKind.DATA, data_key_bytes), (KeyKind.ALERT, alert_key_bytes)):
        if size not in KEY_SIZES[kind]:
            raise UsageError("a key of kind {} has 16 or 32 bytes, not {}".format(kind.name.lower(), size))
    for name in recipients:
        if not _is_name(name):
            raise UsageError("recipient {!r}: 1 to 31 of a-z, 0-9 and -, no - first".format(name))
    if len(set(recipients)) != len(recipients) or not 1 <= len(recipients) <= wire.EDGED_RECIPIENTS_MAX:
        raise UsageError("{} recipients: 1 to {}, each once".format(len(recipients), wire.EDGED_RECIPIENTS_MAX))
    if os.path.isdir(folder) and os.listdir(folder):
        raise KeyRefused("{}: is not empty: keys are not written over; choose a new folder".format(folder))
    qdo_key, curve = Ed25519PrivateKey.generate(), generate_keys()
    public = Public(public_bytes(qdo_key), curve.public.decode("ascii"), os.urandom(16),
                    tuple(PublicRecipient(name, os.urandom(16), os.urandom(16)) for name in recipients))
    placing = Placing()

    def add(name: str, content: bytes) -> None:
        placing.add(os.path.join(folder, name), content)

    add("qdo.key", qdo_key.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()))
    add("curve.key", curve.secret)
    _draw(placing, folder, public, 1, [data_key_bytes] + [alert_key_bytes] * len(public.recipients))
    add(PUBLIC_FILE, _public_text(public))
    placing.commit()
    return public


def renew(folder: str) -> Public:
    """Draw a new data key and new alert keys, for the same recipients and of the same sizes. The former ones stay.

    Raises what reading raises, KeyRefused, OSError; then nothing was changed.
    """
    public, files = read_public(folder), keyfiles.read_all(folder)
    sizes = [len(keyfiles.choose(files, folder, key_id, name).read()) for name, key_id in _named_ids(public)]
    new = replace(public, data_key_id=os.urandom(16),
                  recipients=tuple(one._replace(key_id=os.urandom(16)) for one in public.recipients))
    placing = Placing()
    _draw(placing, folder, new, 1 + keyfiles.last_drawn(folder), sizes)
    placed = placing.commit()
    path, text = Path(folder, PUBLIC_FILE), _public_text(new)
    try:
        replace_file(path, text, stat.S_IMODE(os.stat(str(path)).st_mode))
    except BaseException:
        undo(placed, path, text)
        raise
    return new


def retire(folder: str, agreements: Iterable[Agreement], dropped: Collection[bytes],
           owed: Iterable[bytes] = ()) -> Tuple[List[str], List[str]]:
    """Take away the former keys that none of these agreements names and a dropped one did; (files that went, those
    that stay because nobody knows of an agreement that named them).

    dropped : key ids that dropped agreements named
    owed : key ids of records that still have to be opened, though their agreement may not be among these
    Raises what reading raises, KeyRefused where no former key may go, OSError.
    """
    public, files = read_public(folder), keyfiles.read_all(folder)
    named = {key_id: agreement.number for agreement in agreements
             for key_id in (agreement.data_key,) + tuple(one.alert_key for one in agreement.recipients)}
    current = {public.data_key_id} | {one.key_id for one in public.recipients}
    former = [one for key_id, one in files.items() if key_id not in current]
    waiting = [one for one in former if one.key_id in set(owed) - set(named)]
    if waiting:
        raise KeyRefused("{}: opens records that were not passed on yet: list their agreement again and let "
                         "`edged-city listen` run".format(os.path.join(folder, waiting[0].file)))
    needed = [named[one.key_id] for one in former if one.key_id in named]
    gone = [one for one in former if one.key_id not in named and one.key_id in dropped]
    kept = [one.file for one in former if one.key_id not in named and one.key_id not in dropped]
    stems = keyfiles.unfinished(folder) + [one.stem for one in gone]
    if not stems and needed:
        raise KeyRefused("agreement {} names former keys: once every node ended it, `edged-city drop {}`".format(
            needed[0], needed[0]))
    if not stems and kept:
        raise KeyRefused("{}: {}".format(", ".join(kept), KEPT))
    for stem in stems:
        keyfiles.remove(folder, stem)
    return [stem + ".key" for stem in stems], kept


def read_public(folder: str) -> Public:
    """Raises MissingInput, KeyRefused, ConfigError."""
    return read_public_file(os.path.join(folder, PUBLIC_FILE))


def read_public_file(path: str) -> Public:
    """Likewise, where somebody else than the city has it."""
    root = strict.read(path, ("schema", "qdo", "curve", "data_key_id", "recipient"))
    root.integer("schema", low=1, high=1)
    return Public(
        root.octets("qdo", 32), root.text("curve"), root.octets("data_key_id", 16),
        tuple(PublicRecipient(table.text("name", pattern=strict.NAME, meaning="a name"),
                              table.octets("rcpt", 16),
                              table.octets("key_id", 16))
              for table in root.array("recipient", ("name", "rcpt", "key_id"))))


def demo_agreement(folder: str, mo_key: Ed25519PrivateKey, model: ModelTerms, rules: Sequence[Rule], body: int,
                   from_s: int, until_s: int, status: wire.MessageStatus = wire.MessageStatus.TEST, number: int = 1,
                   beacon_period_s: int = 10, beacon_limit_s: int = 60, placements: int = 7, score_bits: int = 7,
                   clips_per_hour: int = 36000, sees: int = 0, skeletons: bool = False) -> bytes:
    """An agreement in final form, signed by the city whose keys lie in ``folder`` and by ``mo_key``, which in earnest
    never are in one hand. Every recipient sees every rule's label and score, and
    skeletons where they are agreed. sees : EDGED_SEES_SCORES or 0

    Raises MissingInput, KeyRefused, ConfigError.
    """
    public = read_public(folder)
    of_a_rule = _OF_A_RULE | (wire.EDGED_SEES_SKELETON if skeletons else 0)
    agreement = Agreement(
        mo=public_bytes(mo_key), qdo=public.qdo, body=body, from_s=from_s, model=model, rules=tuple(rules),
        until_s=until_s, number=number, status=status, beacon_period_s=beacon_period_s, beacon_limit_s=beacon_limit_s,
        data_key=public.data_key_id, placements=placements, score_bits=score_bits, clips_per_hour=clips_per_hour,
        recipients=tuple(Recipient(one.rcpt, one.key_id, sees, (of_a_rule,) * len(rules))
                         for one in public.recipients))
    return sign(agreement.encode(), mo_key, read_signing_key(folder))


def read_signing_key(folder: str) -> Ed25519PrivateKey:
    """The city's. Raises MissingInput or KeyRefused."""
    return Ed25519PrivateKey.from_private_bytes(read_secret(os.path.join(folder, "qdo.key"), (32,)))


def init(folder: str, signed: bytes, bind: str, address: str, cameras: Sequence[str], bundle: str,
         recipient: Optional[str] = None, mo: Optional[bytes] = None, model_key: Optional[bytes] = None) -> str:
    """Write the subscriber's configuration, where there is none yet, and the bundle of one node; the former's path.

    signed : the agreement. bind : where the subscriber listens; address : where nodes reach it.
    recipient : a name of public.toml; where there is one only, that. mo : the model owner's verification key, where
    the city knows it from elsewhere than the agreement, which it signed itself. model_key : 32 bytes, of an emulated
    enclave's bundle, which carries all keys in clear.
    Raises what reading raises, UsageError, ConfigError, KeyRefused, VerificationFailed.
    """
    public = read_public(folder)
    agreement = open_agreement(signed, mo, public.qdo)
    chosen = _chosen(public, recipient)
    files = keyfiles.read_all(folder)
    mine = _agreed(folder, files, agreement, chosen)
    _check(cameras, bind, address)
    city = Path(folder)
    data_key = keyfiles.choose(files, folder, agreement.data_key, None).read()
    slots: Tuple[bundles.SlotKey, ...] = ()
    if model_key is not None:
        slots = _slots(folder, files, agreement, public, data_key, model_key)
    placing = Placing()
    _add_subscriber(placing, city, chosen, mine, agreement, signed, bind)
    bundles.add(placing, bundle, Bundle(
        name=chosen.name, address=address, server_key=public.curve, recipient=chosen.rcpt, signed=signed,
        agreement=agreement, slots=slots,
        cameras=tuple((name, bundles.camera_key(data_key, name)) for name in cameras)))
    placing.commit()
    return str(city / cityconfig.FILE)


def agreement_file(agreement: Agreement) -> str:
    """Where it lies in the city's folder."""
    return "agreement-{}.cose".format(agreement.number)


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _chosen(public: Public, name: Optional[str]) -> PublicRecipient:
    names = [one.name for one in public.recipients]
    if name is None and len(names) == 1:
        return public.recipients[0]
    if name not in names:
        raise UsageError("--recipient {}: one of {}".format(name or "is needed", ", ".join(names)))
    return public.recipients[names.index(name)]


def _named_ids(public: Public) -> List[Tuple[Optional[str], bytes]]:
    """(recipient, key id) of the data key (None) and each alert key."""
    ids: List[Tuple[Optional[str], bytes]] = [(None, public.data_key_id)]
    return ids + [(one.name, one.key_id) for one in public.recipients]


def _draw(placing: Placing, folder: str, public: Public, drawn: int, sizes: Sequence[int]) -> None:
    """sizes : of the data key and the recipients' alert keys, in their order"""
    for (recipient, key_id), size in zip(_named_ids(public), sizes):
        stem = os.path.join(folder, keyfiles.stem(recipient, drawn))
        placing.add(stem + ".key", os.urandom(size))
        placing.add(stem + ".id", keyfiles.id_line(key_id))


def _agreed(folder: str, files: Mapping[bytes, KeyFile], agreement: Agreement, chosen: PublicRecipient) -> KeyFile:
    """The chosen recipient's alert key under the agreement, which has to name keys of this folder alone."""
    if agreement.data_key not in files:
        raise KeyRefused("agreement {}: names data key {}, which is not in {}".format(
            agreement.number, agreement.data_key.hex(), folder))
    key_id = named_key(agreement, chosen.rcpt)
    if key_id is None or key_id not in files:
        raise KeyRefused("agreement {}: does not name recipient {} ({}) with an alert key in {}".format(
            agreement.number, chosen.name, chosen.rcpt.hex(), folder))
    return keyfiles.choose(files, folder, key_id, chosen.name)


def _check(cameras: Sequence[str], bind: str, address: str) -> None:
    if len(set(cameras)) != len(cameras) or not 1 <= len(cameras) <= wire.EVAL_SESSIONS_MAX:
        raise UsageError("{} cameras: 1 to {}, each once".format(len(cameras), wire.EVAL_SESSIONS_MAX))
    for name in cameras:
        if not _is_name(name):
            raise UsageError("camera {!r}: 1 to 31 of a-z, 0-9 and -, no - first".format(name))
    if not re.fullmatch(cityconfig.BIND, bind):
        raise UsageError("--bind {}: {}".format(bind, cityconfig.BIND_MEANING))
    if not bundles.is_address(address):
        raise UsageError("--address {}: {}".format(address, bundles.ADDRESS_MEANING))


def _slots(folder: str, files: Mapping[bytes, KeyFile], agreement: Agreement, public: Public, data_key: bytes,
           model_key: bytes) -> Tuple[bundles.SlotKey, ...]:
    """Of the model, of the data, of each recipient in the agreement's order: as edged/offload expects them."""
    known = {one.rcpt: one for one in public.recipients}
    made = [bundles.SlotKey("model", "model.key", model_key, agreement.model.key_id, agreement.mo),
            bundles.SlotKey("data", "data.key", data_key, agreement.data_key, public.qdo)]
    for recipient in agreement.recipients:
        one = known.get(recipient.rcpt)
        if one is None:
            raise KeyRefused("agreement {}: recipient {} is none of this folder's: its key cannot be put into a "
                             "slot".format(agreement.number, recipient.rcpt.hex()))
        key = keyfiles.choose(files, folder, recipient.alert_key, one.name).read()
        made.append(bundles.SlotKey("alert", "alert-{}.key".format(one.name), key, recipient.alert_key, public.qdo))
    return tuple(made)


def _add_subscriber(placing: Placing, city: Path, chosen: PublicRecipient, mine: KeyFile, agreement: Agreement,
                    signed: bytes, bind: str) -> None:
    path, file = city / cityconfig.FILE, agreement_file(agreement)
    placing.add(city / file, signed, SHARED)
    if path.exists():
        # Another node of the same city.
        config = cityconfig.load(str(path))
        if config.recipient != chosen.rcpt:
            raise ConfigError("{}: is for recipient {}, not {}".format(path, config.recipient.hex(), chosen.name))
        if not any(one.exists() and one.read_bytes() == signed for one in config.agreements):
            raise ConfigError("{}: agreements does not list agreement {}: `edged-city adopt --agreement FILE` "
                              "first".format(path, agreement.number))
        return
    placing.add(path, _subscriber_text(chosen, mine, agreement, bind, file))
    if not (city / NODES_FILE).exists():
        placing.add(city / NODES_FILE, NODES_HEAD.encode("ascii"), SHARED)


def _public_text(public: Public) -> bytes:
    text = ("# What others may know of this city's keys: for the model's owner, who names them in the agreement.\n"
            "schema = 1\nqdo = \"{}\"\ncurve = \"{}\"\ndata_key_id = \"{}\"\n".format(
                public.qdo.hex(), public.curve, public.data_key_id.hex()))
    for one in public.recipients:
        text += "\n[[recipient]]\nname = \"{}\"\nrcpt = \"{}\"\nkey_id = \"{}\"\n".format(
            one.name, one.rcpt.hex(), one.key_id.hex())
    return text.encode("ascii")


def _subscriber_text(chosen: PublicRecipient, mine: KeyFile, agreement: Agreement, bind: str, file: str) -> bytes:
    return ("# The city's subscriber: `edged-city listen --config` this file. Paths are relative to its folder.\n"
            "schema = 1\nbind = \"{}\"\ncurve_key = \"curve.key\"\nrecipient = \"{}\"\nalert_key = \"{}\"\n"
            "alert_key_id = \"{}\"\nagreements = [\"{}\"]      # the one in force first, then those before it\n"
            "mo = \"{}\"\nqdo = \"{}\"\nnodes = \"{}\"\njournal = \"journal-{}.db\"\n".format(
                bind, chosen.rcpt.hex(), mine.file, mine.key_id.hex(), file, agreement.mo.hex(),
                agreement.qdo.hex(), NODES_FILE, chosen.name)).encode("ascii")


def _is_name(name: str) -> bool:
    return re.fullmatch(strict.NAME, name) is not None
