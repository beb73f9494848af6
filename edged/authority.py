"""What `edged-city` and `edged-owner` do alike or thinly: the certification authority, nonces, verifying evidence,
signing reference values. Files in, files out; edged/trust does the work."""

import argparse
import json
import os
import sys
import time
from typing import Any, Callable, List, Tuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged import command
from edged.alerts import nodes
from edged.errors import MissingInput, PackageError, UsageError
from edged.placing import SECRET, SHARED, Placing, replace_file
from edged.secret import read_secret
from edged.trust import certificates, chain, evidence, reference
from edged.trust.certificates import Authority, list_name
from edged.trust.request import SECRET_BYTES
from edged.trust.sealed import read_passphrase

FOLDER = "ca"
NONCE_BYTES = 32
_NONCE_MAX = 1024


def add_ca(commands: Any) -> None:
    """`ca ...`, of the city."""
    parser = commands.add_parser("ca", help="the city's certification authority for its boards")
    group = parser.add_subparsers(required=True, dest="ca", metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], words: str, passphrase: bool = True,
            board: bool = True) -> argparse.ArgumentParser:
        one = group.add_parser(name, help=words)
        one.add_argument("--dir", metavar="DIR", default=FOLDER, help="the authority's folder (default: ./%(default)s)")
        if passphrase:
            one.add_argument("--passphrase-file", metavar="FILE", required=True, help="readable by you alone")
        if board:
            one.add_argument("board", metavar="SERIAL|NODE")
        one.set_defaults(run=run)
        return one

    begun = add("init", run_init, "draw its keys into a new folder", board=False)
    begun.add_argument("--city", metavar="NAME", required=True, help="stands in the certificates")
    board = add("board", run_board, "list a board: it may be enrolled", board=False)
    board.add_argument("serial", metavar="SERIAL")
    board.add_argument("--node", metavar="NAME", required=True, help="what the board is to be")
    board.add_argument("--emulated", action="store_true", help="no board at all: the host port")
    _with_station(board)
    add("challenge", run_challenge, "print a fresh challenge, good once and for 15 minutes", passphrase=False)
    enrolled = add("enrol", run_enrol, "give a certificate to the board that answered its challenge")
    enrolled.add_argument("--request", metavar="FILE", required=True, help="its answer")
    enrolled.add_argument("--out", metavar="FILE", required=True, help="its certificate and the issuing CA's, in PEM")
    enrolled.add_argument("--days", type=int, default=chain.DEVICE_DAYS, metavar="N", help="default %(default)s")
    enrolled.add_argument("--again", action="store_true", help="it has one, which is revoked by this")
    enrolled.add_argument("--node-list", metavar="FILE",
                          help="of the city's subscriber, which takes the records of this board alone under the node's "
                               "name from then on (default: {}, where it lies beside the authority's "
                               "folder)".format(nodes.FILE))
    revoked = add("revoke", run_revoke, "revoke a board for good; a new list says so", passphrase=False)
    replaced = add("replace", run_replace, "put another board in the place of one: same node, same class")
    replaced.add_argument("--serial", metavar="SERIAL", required=True, help="of the new board")
    _with_station(replaced)
    for one in (revoked, replaced):
        one.add_argument("--reason", choices=tuple(certificates.REASONS), default="retired", help="default %(default)s")
    lists = add("crl", run_crl, "write new revocation lists, for all who verify", board=False)
    lists.add_argument("--days", type=int, default=chain.CRL_DAYS, metavar="N",
                       help="until when the next must be there (default %(default)s)")
    add("list", run_list, "print boards and certificates, as JSON", passphrase=False, board=False)


def add_verify(commands: Any, city: bool) -> None:
    """`nonce` and `verify`. city : who has an authority's folder need not name its files."""
    drawn = commands.add_parser("nonce", help="draw a nonce for a device to answer with evidence")
    drawn.add_argument("file", metavar="FILE", help="keeps it and when it was drawn, for verify")
    drawn.set_defaults(run=run_nonce)

    parser = commands.add_parser("verify", help="whether evidence is that of a device to be trusted",
                                 description="Verify evidence and print what it is of, as JSON. The nonce is used up "
                                             "by evidence that is taken.")
    parser.add_argument("file", metavar="EVIDENCE")
    parser.add_argument("--nonce", metavar="FILE", required=True, help="as nonce wrote it")
    if city:
        parser.add_argument("--dir", metavar="DIR", help="the authority's folder, for --root, --crl and --node")
        parser.add_argument("--node", metavar="NAME", help="the evidence must be of the board that stands for it")
    parser.add_argument("--root", metavar="FILE", help="the root certificate, from the city")
    parser.add_argument("--crl", metavar="FILE", action="append", default=[], dest="crls",
                        help="revocation list, from the city; may be given several times")
    parser.add_argument("--reference", metavar="FILE", action="append", required=True, dest="references",
                        help="signed reference values; may be given several times")
    parser.add_argument("--signer", metavar="HEX", action="append", required=True, dest="signers",
                        help="verification key of who may sign them; may be given several times")
    parser.add_argument("--ueid", metavar="HEX", help="the evidence must be of this device")
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument("--device", metavar="HEX", action="append", default=[], dest="devices",
                      help="fingerprint of a device's attestation key, as `edgectl identity show` printed it on the "
                           "board itself; may be given several times")
    seen.add_argument("--trust-authority", action="store_true", help="whatever the authority certifies is a device")
    parser.add_argument("--max-age", type=command.at_least(1), default=evidence.NONCE_S, metavar="SECONDS",
                        help="of the nonce (default %(default)s)")
    for what, words in (("emulated", "a device that protects nothing"), ("debug", "a device that may be debugged"),
                        ("unfused", "a board for whose measurements nothing vouches")):
        parser.add_argument("--allow-" + what, action="store_true", help="take " + words)
    parser.set_defaults(run=run_verify, dir=None, node=None)


def add_sign_reference(commands: Any, signing_key: Callable[[argparse.Namespace], Ed25519PrivateKey]
                       ) -> argparse.ArgumentParser:
    """`sign-reference`; the caller adds where its key is."""
    parser = commands.add_parser("sign-reference", help="sign reference values of a build, or of several merged")
    parser.add_argument("files", metavar="FILE", nargs="+", help="as scripts/build-ta writes them, of one class")
    parser.add_argument("--out", metavar="FILE", required=True)
    parser.set_defaults(run=run_sign_reference, signing_key=signing_key)
    return parser


def _with_station(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--secret-file", metavar="FILE", required=True,
                        help="32 raw bytes, of the board's flash station, readable by you alone")


def run_init(given: argparse.Namespace) -> None:
    Authority(given.dir).create(given.city, read_passphrase(given.passphrase_file), _now())
    print("wrote {0}: whoever verifies needs {0}/root.pem and the lists {1}, which are good for {2} days: `edged-city "
          "ca crl` each day, and pass them on; {0}/root.key signs no more: keep it elsewhere".format(
              given.dir, " and ".join(map(list_name, chain.CLASSES)), chain.CRL_DAYS))


def run_board(given: argparse.Namespace) -> None:
    class_ = chain.EMULATED if given.emulated else chain.HARDWARE
    Authority(given.dir).add_board(given.serial, given.node, class_, read_secret(given.secret_file, (SECRET_BYTES,)),
                                   read_passphrase(given.passphrase_file))
    print("board {} is expected as {} ({})".format(given.serial, given.node, class_))


def run_challenge(given: argparse.Namespace) -> None:
    print(Authority(given.dir).challenge(given.board, _now()).hex())


def run_enrol(given: argparse.Namespace) -> None:
    if os.path.lexists(given.out):  # before a certificate is issued that nobody gets
        raise UsageError("--out {}: is there already: move it aside first".format(given.out))
    if given.node_list is not None:
        nodes.read_nodes(given.node_list)
    made = Authority(given.dir).enrol(given.board, command.read_file(given.request),
                                      read_passphrase(given.passphrase_file), _now(), given.again, given.days)
    _place(given.out, made.chain, SHARED)
    print("{}: board {} is {}, device {}, until {}".format(
        given.out, made.board.serial, made.board.node, made.ueid.hex(),
        chain.day(chain.seconds(made.certificate, "not_valid_after"))))
    print(_pinned(given, made.board.node, made.ueid[1:]))


def _pinned(given: argparse.Namespace, name: str, node: bytes) -> str:
    """What became of the subscriber's list: the authority knows whose board this is, else the first record says it.

    node : the ueid without its first byte, its type
    """
    path = given.node_list
    if path is None:
        path = os.path.join(os.path.dirname(os.path.abspath(given.dir)), nodes.FILE)
        if not os.path.exists(path):
            return "node {}: `edged-city allow {} --key=Z85 --node {}`, or --node-list, has the subscriber take no " \
                   "other's records under this name".format(node.hex(), name, node.hex())
    if nodes.pin(path, name, node):
        return "{}: records of {} are taken of node {} alone".format(path, name, node.hex())
    return "{}: {} is not listed yet: `edged-city allow {} --key=Z85 --node {}`".format(path, name, name, node.hex())


def run_revoke(given: argparse.Namespace) -> None:
    board, count = Authority(given.dir).revoke(given.board, _now(), certificates.REASONS[given.reason])
    print("board {} of {} is revoked, with {} certificate(s): `edged-city ca crl` tells the verifiers".format(
        board.serial, board.node, count))


def run_replace(given: argparse.Namespace) -> None:
    old = Authority(given.dir).replace(given.board, given.serial, read_secret(given.secret_file, (SECRET_BYTES,)),
                                       read_passphrase(given.passphrase_file), _now(),
                                       certificates.REASONS[given.reason])
    print("board {} is revoked, {} is expected as {}; next: `edged-city ca challenge {}`, `edged-city ca enrol`; the "
          "verifiers need the new lists:".format(old.serial, given.serial, old.node, given.serial))
    _write_lists(given, chain.CRL_DAYS)


def run_crl(given: argparse.Namespace) -> None:
    _write_lists(given, given.days)


def _write_lists(given: argparse.Namespace, days: int) -> None:
    authority, passphrase = Authority(given.dir), read_passphrase(given.passphrase_file)
    for class_ in chain.CLASSES:
        path = os.path.join(given.dir, list_name(class_))
        replace_file(path, authority.crl(class_, passphrase, _now(), days), SHARED)
        print(path)


def run_list(given: argparse.Namespace) -> None:
    print(json.dumps(Authority(given.dir).list(), indent=2))


def run_nonce(given: argparse.Namespace) -> None:
    nonce = os.urandom(NONCE_BYTES)
    _place(given.file, json.dumps({"nonce": nonce.hex(), "issued": _now()}).encode("ascii") + b"\n", SECRET)
    print(nonce.hex())


def run_verify(given: argparse.Namespace) -> None:
    nonce, issued_s = _read_nonce(given.nonce)
    root, crls = given.root, list(given.crls)
    ueid = command.octets(given.ueid, "--ueid", evidence.UEID_BYTES) if given.ueid is not None else None
    if given.dir is not None:
        root = root or os.path.join(given.dir, "root.pem")
        crls += [path for path in (os.path.join(given.dir, list_name(class_)) for class_ in chain.CLASSES)
                 if os.path.exists(path)]
    if root is None:
        raise UsageError("--root: the city's root certificate is needed")
    if given.node is not None:
        if given.dir is None or ueid is not None:
            raise UsageError("--node: needs --dir, and no --ueid")
        ueid = Authority(given.dir).ueid(given.node)
    signers = [command.octets(one, "--signer", 32) for one in given.signers]
    devices = None if given.trust_authority else [command.octets(one, "--device", 32) for one in given.devices]
    verified = evidence.verify(
        command.read_file(given.file), evidence.Expected(nonce, issued_s, ueid),
        _only(certificates.read_certificates(root), root),
        [chain.read_crl(command.read_file(path), path) for path in crls],
        [reference.open_references(command.read_file(path), signers) for path in given.references], _now(),
        evidence.Policy(given.allow_emulated, given.allow_debug, given.allow_unfused, given.max_age,
                        devices))
    os.unlink(given.nonce)  # before anybody hears of it: one nonce, one answer
    if verified.class_ == chain.EMULATED:
        print("this device is EMULATED: it protects nothing", file=sys.stderr)
    print(json.dumps(verified.as_dict(), indent=2))


def run_sign_reference(given: argparse.Namespace) -> None:
    merged = reference.merge([_read_reference(path) for path in given.files])
    _place(given.out, reference.sign(merged.encode(), given.signing_key(given)), SHARED)
    print(json.dumps(merged.as_dict(), indent=2))


def _read_reference(path: str) -> reference.References:
    try:
        return reference.read(command.read_file(path))
    except PackageError as error:
        raise PackageError("{}: {}".format(path, error)) from error


def _read_nonce(path: str) -> Tuple[bytes, int]:
    try:
        content = command.read_file(path)
    except MissingInput as error:
        raise MissingInput("{}: `nonce` writes it, and evidence that was taken uses it up".format(error)) from error
    try:
        found = json.loads(content[:_NONCE_MAX].decode("ascii"))
        nonce, issued_s = bytes.fromhex(found["nonce"]), found["issued"]
    except (ValueError, TypeError, KeyError):
        nonce, issued_s = b"", None
    low, high = evidence.NONCE_BYTES
    if not low <= len(nonce) <= high or type(issued_s) is not int:
        raise PackageError("{}: not a nonce as `nonce` writes it".format(path))
    return nonce, issued_s


def _only(found: List[Any], path: str) -> Any:
    if len(found) != 1:
        raise PackageError("{}: {} certificates, not the root's alone".format(path, len(found)))
    return found[0]


def _place(path: str, content: bytes, mode: int) -> None:
    placing = Placing()
    placing.add(path, content, mode)
    placing.commit()


def _now() -> int:
    return int(time.time())
