"""How two parties come to an agreement: what `edged-owner` and `edged-city` do alike with its drafts and signatures.

A draft in text is written by either, signed by one, signed by the other. Nothing is signed whose digest the party did
not name, and the digest is shown beneath the terms and what they widen: a script never signs what nobody read.
"""

import argparse
import time
from dataclasses import replace
from typing import Any, Callable, List

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edged import canonical, command
from edged.alerts import keys
from edged.enclave import wire
from edged.errors import KeyRefused, PackageError, UsageError, VerificationFailed
from edged.placing import SHARED, Placing
from edged.trust import agreement_diff, agreement_text, cosign, keyring
from edged.trust.agreement import DAY_S, THRESHOLD_ONE, Agreement, ModelTerms, Recipient, Rule, body_for
from edged.trust.cosign import Paper, Party

_OPTIONS = {Party.MODEL_OWNER: "--mo", Party.QUERY_DATA_OWNER: "--qdo"}

# What a first draft says before its parties have changed it: every label is an alert where it is likelier than not, at
# most once a minute; recipients get the alerts, with seven bits of each score, and nothing of other clips; ten cameras'
# worth of clips; alerts marked Test, for a year.
_THRESHOLD = THRESHOLD_ONE // 2
_COOL_DOWN_S = 60
_BEACON_PERIOD_S, _BEACON_LIMIT_S = 10, 60
_SCORE_BITS = 7
_CLIPS_PER_HOUR = 36000
_DAYS = 365
FIRST_NUMBER = 1


def add_agreement(commands: Any) -> Any:
    """`agreement ...`; the group, for what one party alone has."""
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
    renewed = group.add_parser("renew", help="draft the agreement that follows one, with the city's new keys",
                               description="Write a draft with the next number and the key ids of the city's "
                                           "public.toml, for both to sign.")
    renewed.add_argument("old", metavar="OLD", help="the agreement in force, signed by both")
    renewed.add_argument("--city", metavar="FILE", required=True, help="the city's public.toml")
    renewed.add_argument("--until", metavar="TIME", help="as 2027-01-31T00:00:00Z (default: as before)")
    renewed.add_argument("--least-version", metavar="N", type=int,
                         help="of the model's package: none before it is taken any more (default: as before)")
    renewed.add_argument("--out", metavar="FILE", required=True, help="the draft")
    renewed.set_defaults(run=run_renew)
    return group


def add_draft(group: Any) -> None:
    """`agreement draft`, of the model owner, who has the package."""
    parser = group.add_parser("draft", help="draft a first agreement, to be edited, then signed by both",
                              description="Write a draft with the keys of both parties, the package's model and a rule "
                                          "for each of its labels. All else is a beginning: thresholds, times and who "
                                          "sees what are for the parties to settle.")
    parser.add_argument("--city", metavar="FILE", required=True, help="the city's public.toml")
    parser.add_argument("--keys", metavar="RING", required=True, help="the owner's; only what is public of it is read")
    parser.add_argument("--package", metavar="FILE", required=True, help="of this owner; versions from its own on")
    parser.add_argument("--label", metavar="TEXT", action="append", dest="labels",
                        help="of the package's, to be an alert; may be given several times (default: each)")
    parser.add_argument("--skeletons", action="store_true",
                        help="recipients see those of alerts, too; every record then has {} bytes".format(
                            wire.EDGED_BODY_SKELETONS))
    parser.add_argument("--number", metavar="N", type=command.at_least(0), default=FIRST_NUMBER,
                        help="must rise over all agreements of a party on a node (default %(default)s)")
    parser.add_argument("--out", metavar="FILE", required=True, help="the draft")
    parser.set_defaults(run=run_draft)


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


def run_draft(given: argparse.Namespace) -> None:
    with command.needs("owner"):
        from edged.model import package
    public, mine = keys.read_public_file(given.city), keyring.inspect(given.keys)
    try:
        manifest = package.verify(command.read_file(given.package),
                                  Ed25519PublicKey.from_public_bytes(mine.verify_key))
    except (PackageError, VerificationFailed) as error:
        raise type(error)("{}: {}".format(given.package, error)) from error
    if manifest.key_id not in mine.key_ids:
        raise KeyRefused("{}: has no model key {}, under which {} is".format(
            given.keys, manifest.key_id.hex(), given.package))
    labels = manifest.labels if given.labels is None else tuple(given.labels)
    for label in labels:
        if label not in manifest.labels:
            raise UsageError("--label {}: {} has {}".format(label, given.package, ", ".join(manifest.labels)))
    if len(labels) > wire.EDGED_RULES_MAX:
        raise UsageError("{} labels, an agreement has rules for {}: choose some by --label".format(
            len(labels), wire.EDGED_RULES_MAX))
    from_s = int(time.time()) // DAY_S * DAY_S
    sees = agreement_text.SEES["label, score and skeletons" if given.skeletons else "label and score"]
    agreement = Agreement(
        mo=mine.verify_key, qdo=public.qdo, body=body_for(len(manifest.labels), len(labels), given.skeletons),
        from_s=from_s, until_s=from_s + _DAYS * DAY_S,
        model=ModelTerms(manifest.model_id, manifest.version, manifest.key_id),
        rules=tuple(Rule(label, _THRESHOLD, _COOL_DOWN_S) for label in labels), number=given.number,
        status=wire.MessageStatus.TEST, beacon_period_s=_BEACON_PERIOD_S, beacon_limit_s=_BEACON_LIMIT_S,
        data_key=public.data_key_id, placements=manifest.placements, score_bits=_SCORE_BITS,
        clips_per_hour=_CLIPS_PER_HOUR, recipients=tuple(
            Recipient(one.rcpt, one.key_id, 0, (sees,) * len(labels)) for one in public.recipients))
    text = agreement_text.write(agreement).encode("utf-8")
    agreement_text.read(given.out, text)  # a number or label that no agreement may have is said now
    placing = Placing()
    placing.add(given.out, text, SHARED)
    placing.commit()
    print("{}: agreement {}, signed by nobody: edit it (thresholds, times, who sees what, status), then `agreement "
          "check`, and both parties sign it".format(given.out, agreement.number))


def run_renew(given: argparse.Namespace) -> None:
    old, public = _in_force("OLD", given.old), keys.read_public_file(given.city)
    agreement = old.agreement
    if public.qdo != agreement.qdo:
        raise VerificationFailed("{}: is of {}, the query data owner of {} is {}".format(
            given.city, public.qdo.hex(), given.old, agreement.qdo.hex()))
    now = {one.rcpt: one.key_id for one in public.recipients}
    for one in agreement.recipients:
        if one.rcpt not in now:
            raise KeyRefused("{}: has no key of recipient {}: whom that agreement names".format(
                given.city, one.rcpt.hex()))
    until_s = agreement.until_s if given.until is None else agreement_text.seconds(given.until)
    if until_s is None or until_s <= agreement.from_s:
        raise UsageError("--until {}: a time in UTC after {}, as 2027-01-31T00:00:00Z".format(
            given.until, agreement_text.moment(agreement.from_s)))
    recipients = tuple(one._replace(alert_key=now[one.rcpt]) for one in agreement.recipients)
    model = agreement.model
    if given.least_version is not None:
        if not model.least_version <= given.least_version <= canonical.UINT32:
            raise UsageError("--least-version {}: {}, which is agreed, or more".format(
                given.least_version, model.least_version))
        model = model._replace(least_version=given.least_version)
    new = replace(agreement, number=agreement.number + 1, until_s=until_s, data_key=public.data_key_id, model=model,
                  recipients=recipients)
    if new == replace(agreement, number=new.number):
        raise UsageError("{}: names the keys of {} already: `edged-city keys renew` first, or --until, or "
                         "--least-version".format(given.old, given.city))
    placing = Placing()
    placing.add(given.out, agreement_text.write(new).encode("utf-8"), SHARED)
    placing.commit()
    print("\n".join(_difference(old, cosign.Paper(new, {}))))
    print("{}: agreement {}, signed by nobody: both parties sign it".format(given.out, new.number))


def run_sign(given: argparse.Namespace) -> None:
    paper, other = _read(given.file), given.party.other
    if given.other is not None:
        expected = command.octets(given.other, _OPTIONS[other], 32)
        if other.key_of(paper.agreement) != expected:
            raise VerificationFailed("{}: its {} is {}, not {}".format(
                given.file, other.value, other.key_of(paper.agreement).hex(), expected.hex()))
    print(show_agreement(given.file))
    if given.previous is not None:
        previous = _in_force("--previous", given.previous)
        print("\n".join(_difference(previous, paper)))
        if paper.agreement.number <= previous.agreement.number:
            raise UsageError("{}: its number is {}, must be above the previous one's, {}".format(
                given.file, paper.agreement.number, previous.agreement.number))
    elif paper.agreement.number > FIRST_NUMBER:
        print("# compared with nothing, though {} is not the first number: --previous FILE, the agreement in force, "
              "has this say what it widens".format(paper.agreement.number))
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


def _in_force(option: str, path: str) -> Paper:
    paper = _read(path)
    if set(paper.signatures) != set(Party):
        raise UsageError("{} {}: is signed by {}: no agreement was in force".format(option, path, paper.signers))
    return paper


def _difference(old: Paper, new: Paper) -> List[str]:
    changes = agreement_diff.diff(old.agreement, new.agreement)
    if not changes:
        return ["# both are the same agreement"]
    wider = sum(change.width is agreement_diff.Width.WIDER for change in changes)
    lines = ["# agreement {} -> {}: {} change(s), {} of them WIDER".format(
        old.agreement.number, new.agreement.number, len(changes), wider)] + [str(change) for change in changes]
    rotated = agreement_diff.rotated(old.agreement, new.agreement)
    if rotated:
        lines.append("# new keys of the city: {}; a key widens nothing{}".format(", ".join(rotated), (
            "" if wider else ", and nothing else does")))
    return lines
