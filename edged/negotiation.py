"""How two parties come to an agreement: what `edged-owner` and `edged-city` do alike with its drafts and signatures.

A draft in text is written by either, signed by one, signed by the other. Nothing is signed whose digest the party did
not name, and the digest is shown beneath the terms and what they widen: a script never signs what nobody read.
"""

import argparse
from typing import Any, Callable, List

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged import command
from edged.errors import UsageError, VerificationFailed
from edged.placing import SHARED, Placing
from edged.trust import agreement_diff, agreement_text, cosign
from edged.trust.cosign import Paper, Party

_OPTIONS = {Party.MODEL_OWNER: "--mo", Party.QUERY_DATA_OWNER: "--qdo"}


def add_agreement(commands: Any) -> None:
    """`agreement ...`."""
    parser = commands.add_parser("agreement", help="read drafts and signed agreements")
    group = parser.add_subparsers(required=True, dest="agreement", metavar="COMMAND")
    checked = group.add_parser("check", help="whether a file is an agreement or a draft of one, and who signed it")
    shown = group.add_parser("show", help="print its terms as text, which is a draft itself")
    for one, run in ((checked, run_check), (shown, run_show)):
        one.add_argument("file", metavar="FILE", help="a draft, or signed by one party or both")
        one.set_defaults(run=run)
    compared = group.add_parser("diff", help="print what one permits that another did not")
    compared.add_argument("old", metavar="OLD")
    compared.add_argument("new", metavar="NEW")
    compared.set_defaults(run=run_diff)


def add_sign(commands: Any, party: Party, signing_key: Callable[[argparse.Namespace], Ed25519PrivateKey]
             ) -> argparse.ArgumentParser:
    """`sign`; the caller adds where its key is."""
    other = _OPTIONS[party.other]
    parser = commands.add_parser("sign", help="sign an agreement: a draft, or what the {} signed".format(
        party.other.value), description="Without --accept-digest: print the terms, and what they widen, and sign "
                                        "nothing.")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--out", metavar="FILE", required=True)
    parser.add_argument("--previous", metavar="FILE", help="the agreement in force, to be compared with")
    parser.add_argument(other, metavar="HEX", dest="other",
                        help="the {}'s verification key, to be compared".format(party.other.value))
    parser.add_argument("--accept-digest", metavar="HEX", help="of the agreement that you have read")
    parser.set_defaults(run=run_sign, party=party, signing_key=signing_key)
    return parser


def show_agreement(path: str) -> str:
    """The terms as text, beneath who signed them. Raises MissingInput, KeyRefused, ConfigError, PackageError,
    VerificationFailed (a signature that is there and does not hold)."""
    paper = _read(path)
    return "# agreement {}, signed by {}\n# digest {}\n{}".format(
        paper.agreement.number, paper.signers, paper.agreement.digest.hex(), agreement_text.write(paper.agreement))


def run_check(given: argparse.Namespace) -> None:
    paper = _read(given.file)
    agreement_text.write(paper.agreement)  # what nobody can read is not in order
    print("{}: agreement {}, from {} until {}, signed by {}, digest {}".format(
        given.file, paper.agreement.number, agreement_text.moment(paper.agreement.from_s),
        agreement_text.moment(paper.agreement.until_s), paper.signers, paper.agreement.digest.hex()))


def run_show(given: argparse.Namespace) -> None:
    print(show_agreement(given.file), end="")


def run_diff(given: argparse.Namespace) -> None:
    print("\n".join(_difference(_read(given.old), _read(given.new))))


def run_sign(given: argparse.Namespace) -> None:
    paper, other = _read(given.file), given.party.other
    if given.other is not None:
        expected = command.octets(given.other, _OPTIONS[other], 32)
        if other.key_of(paper.agreement) != expected:
            raise VerificationFailed("{}: its {} is {}, not {}".format(
                given.file, other.value, other.key_of(paper.agreement).hex(), expected.hex()))
    print(show_agreement(given.file))
    if given.previous is not None:
        previous = _read(given.previous)
        if set(previous.signatures) != set(Party):
            raise UsageError("--previous {}: is signed by {}: no agreement was in force".format(
                given.previous, previous.signers))
        print("\n".join(_difference(previous, paper)))
        if paper.agreement.number <= previous.agreement.number:
            raise UsageError("{}: its number is {}, must be above the previous one's, {}".format(
                given.file, paper.agreement.number, previous.agreement.number))
    if given.accept_digest is None:
        raise UsageError("not signed: read the terms above, then --accept-digest {}".format(
            paper.agreement.digest.hex()))
    accepted = command.octets(given.accept_digest, "--accept-digest", 32)
    made = cosign.sign(paper, given.party, given.signing_key(given), accepted)
    placing = Placing()
    placing.add(given.out, made.encode(), SHARED)
    placing.commit()
    print("{}: agreement {}, signed by {}".format(given.out, made.agreement.number, made.signers))


def _read(path: str) -> Paper:
    return cosign.read(path, command.read_file(path))


def _difference(old: Paper, new: Paper) -> List[str]:
    changes = agreement_diff.diff(old.agreement, new.agreement)
    if not changes:
        return ["# both are the same agreement"]
    wider = sum(change.width is agreement_diff.Width.WIDER for change in changes)
    return ["# agreement {} -> {}: {} change(s), {} of them WIDER".format(
        old.agreement.number, new.agreement.number, len(changes), wider)] + [str(change) for change in changes]
