"""The key server: keys for who proves what it is, one line of reason for everybody else; nothing is forgotten."""

import hashlib
import json
import os
import select
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import padding  # noqa: E402

from edged import canonical  # noqa: E402
from edged import city as city_program  # noqa: E402
from edged import owner as owner_program  # noqa: E402
from edged.alerts import keys  # noqa: E402
from edged.enclave.wire import KeyKind  # noqa: E402
from edged.errors import (  # noqa: E402
    ConfigError, KeyRefused, PackageError, ServerError, SpoolError, VerificationFailed)
from edged.keyserver import config as configs  # noqa: E402
from edged.keyserver.holder import of_city, of_owner  # noqa: E402
from edged.keyserver.ledger import Standing  # noqa: E402
from edged.keyserver.limits import Buckets, neighbourhood_of, network_of  # noqa: E402
from edged.keyserver.office import Office as ServerOffice  # noqa: E402
from edged.trust import chain, cose, floor, grant, keyprotocol, keyring  # noqa: E402
from edged.trust.certificates import STOLEN  # noqa: E402
from edged.trust.keyclient import KeyServer, fetch_grants  # noqa: E402
from edged.trust.request import spki_of  # noqa: E402
from evidence_cases import (  # noqa: E402
    DAY_S, NOW, OTHER, PASSPHRASE, REFERENCES, Device, Office, changed, signed_references)
from keyserver_cases import (  # noqa: E402, F401
    LOOPBACK, Site, another, city, ledger, office, ring, server, site, standing, terms, tls)


def opened(device, encoded):
    """(header, key) as the key application would read them."""
    header = grant.open_grant(encoded)
    message = cose.read(encoded, cose.SIGN1, cose.EDDSA, "", 1 << 12)
    head, wrapped = canonical.decode(message.payload, "", "list")
    return header, device.grant.decrypt(wrapped, padding.OAEP(
        padding.MGF1(hashes.SHA256()), hashes.SHA256(), hashlib.sha256(head).digest()))


# ------------------------------------------------------------------------------------------------------------ grants


def test_a_device_that_proves_itself_gets_the_citys_keys_for_itself_alone(site, server, city, terms, office):
    device = office.device
    made = fetch_grants("{}:{}".format(LOOPBACK, server.port), str(site.folder / "server.pem"), device.ueid,
                        lambda nonce: server.evidence(device, nonce)).grants
    found = [opened(device, one) for one in made]
    files = [(city / name).read_bytes() for name in ("data.key", "alert-city.key", "alert-police.key")]
    assert [key for _, key in found] == files
    assert [(header.kind, header.slot, header.key_id) for header, _ in found] == [
        (KeyKind.DATA, 1, terms.data_key), (KeyKind.ALERT, 2, terms.recipients[0].alert_key),
        (KeyKind.ALERT, 3, terms.recipients[1].alert_key)]
    for header, _ in found:
        assert header.device == hashlib.sha256(spki_of(device.grant.public_key())).digest()
        assert header.verifier == terms.qdo and header.agreement == terms.digest
    assert standing(site, device) is Standing.PASSED


def test_the_owners_server_gives_the_model_key_alone(site, ring, terms, office):
    with site.serving(party="owner") as server:
        (made,) = server.grants(server.evidence())
    header, key = opened(office.device, made)
    assert (header.kind, header.slot, header.verifier) == (KeyKind.MODEL, 0, terms.mo)
    assert (header.key_id, key) == ring.model_key()


def test_numbers_rise_with_each_grant_of_a_slot_and_go_on_after_a_restart(site):
    numbers = []
    for _ in range(2):
        with site.serving() as server:
            for _ in range(2):
                numbers.append([grant.open_grant(one).number for one in server.grants(server.evidence())])
    assert numbers == [[NOW + step] * 3 for step in range(4)]


def test_numbers_go_on_where_the_ledger_was_lost(site):
    with site.serving() as server:
        before = grant.open_grant(server.grants(server.evidence())[0]).number
    for path in site.folder.glob("ledger.db*"):
        path.unlink()
    site.clock.now_s += 60
    with site.serving() as server:
        assert grant.open_grant(server.grants(server.evidence())[0]).number > before


def test_numbers_go_on_where_the_clock_was_set_back(site):
    with site.serving() as server:
        server.grants(server.evidence())
        site.clock.now_s -= 600
        assert grant.open_grant(server.grants(server.evidence())[0]).number == NOW + 1


# ------------------------------------------------------------------------------------------------ floors, and slots


def asked(server, device=None):
    """(grants, floor), opened."""
    given = server.client.grants(server.evidence(device))
    return [grant.open_grant(one) for one in given.grants], floor.open_floor(given.floor)


def test_a_floor_comes_with_the_grants_for_the_start_that_was_attested(site, office, terms):
    with site.serving() as server:
        device = office.device
        nonce = server.challenge(device)
        claims = device.claims(nonce)
        found = floor.open_floor(server.client.grants(server.evidence(nonce=nonce, claims=claims)).floor)
    assert found.start == claims[268] and found.device == grant.thumbprint(spki_of(device.grant.public_key()))
    assert found == floor.Floor(NOW, 0, found.start, found.device,
                                ((1, NOW), (2, NOW), (3, NOW)), terms.qdo, 0)


def test_of_two_floors_of_one_second_the_later_one_says_so(site):
    """A device takes no second one of the same time: it could not tell which was said last."""
    with site.serving() as server:
        said = [asked(server)[1].time_s, asked(server)[1].time_s]
        site.clock.now_s += 1
        said.append(asked(server)[1].time_s)
        report(server)  # which says none
        said.append(asked(server)[1].time_s)
        site.clock.now_s = NOW + 60
        said.append(asked(server)[1].time_s)
        assert said == [NOW, NOW + 1, NOW + 2, NOW + 3, NOW + 60]
        site.clock.now_s = NOW - 600  # a clock that was set right: what it said wrongly is not said again
        assert asked(server)[1].time_s == NOW - 600


def test_the_owners_floor_is_of_the_models_slot(site, terms):
    with site.serving("", "owner") as server:
        made, said = asked(server)
    assert said.grants == ((0, made[0].number),) and said.verifier == terms.mo


def test_a_floor_says_the_least_agreement_of_the_configuration(site, terms):
    with site.serving(before="least_agreement = {}\n".format(terms.number)) as server:
        assert asked(server)[1].agreement == terms.number
    with pytest.raises(KeyRefused, match="agreement 3 is below least_agreement, 4: devices would not use its keys"):
        with site.serving(before="least_agreement = 4\n"):
            pass


def test_a_floor_says_no_least_version_of_one_model_to_another_of_the_same_owner(site, terms):
    """The device's number is for all of them: only who has one model there may set it."""
    site.put("agreement.cose", site.signed(replace(terms, model=terms.model._replace(least_version=9))))
    with site.serving("", "owner") as server:
        assert asked(server)[1].model == 0
    with site.serving("", "owner", before="least_model = 7\n") as server:
        assert asked(server)[1].model == 7
    for wrong in (-1, 1 << 32):
        with pytest.raises(ConfigError, match="least_model"):
            site.configure(before="least_model = {}\n".format(wrong))


def test_agreements_that_follow_one_another_share_no_slots(site, terms, holders):
    for number in (1, 2, 3, 4):
        for holder in holders:
            due = {one.slot for one in holder.due(replace(terms, number=number))}
            assert due.isdisjoint(one.slot for one in holder.due(replace(terms, number=number + 1)))
            assert due == {one.slot for one in holder.due(replace(terms, number=number + 2))}
            assert [one.slot - 5 for one in holder.due(terms, 5)] == [one.slot for one in holder.due(terms, 0)]
    most = replace(terms, number=2, recipients=terms.recipients * 2)
    assert max(one.slot for one in holders[0].due(most)) < 16, "of four recipients, too"


@pytest.fixture
def holders(site):
    return site.holder("city"), site.holder("owner")


def test_the_first_slot_may_be_configured(site):
    with site.serving(before="first_slot = 10\n") as server:
        made, said = asked(server)
    assert [one.slot for one in made] == [slot for slot, _ in said.grants] == [11, 12, 13]
    for wrong in (-1, 11):
        with pytest.raises(ConfigError, match="first_slot"):
            site.configure(before="first_slot = {}\n".format(wrong))


def test_while_two_agreements_are_in_force_a_floor_stands_by_the_keys_of_both(site, server, terms):
    """Else the second one's floor would lock the first one's keys. An answer that was lost does not matter."""
    first = asked(server)[1]
    asked(server)
    site.put("agreement.cose", site.signed(replace(terms, number=4)))
    second = asked(server)[1]
    assert dict(second.grants) == {9: NOW, 10: NOW, 11: NOW, **dict(first.grants)}, "whichever of its grants came"


def test_an_agreement_that_ended_is_stood_by_no_more(site, server, terms):
    asked(server)
    with ledger(site) as found:
        device = grant.thumbprint(spki_of(site.office.device.grant.public_key()))
        assert set(found.standing(device, terms.until_s - 1)) == {1, 2, 3}
        assert found.standing(device, terms.until_s) == found.standing(bytes(32), NOW) == {}
        assert set(found.standing(device, NOW, terms.number)) == {1, 2, 3}
        assert found.standing(device, NOW, terms.number + 1) == {}, "below least_agreement"


def test_an_agreement_that_takes_over_the_slots_is_stood_by_from_its_own_numbers_on(site, server, terms):
    asked(server)
    site.put("agreement.cose", site.signed(replace(terms, number=5)))
    made, _ = asked(server)
    site.put("agreement.cose", site.signed(replace(terms, number=6)))
    said = dict(asked(server)[1].grants)
    assert [said[one.slot] for one in made] == [one.number for one in made]


@pytest.mark.parametrize("version", [1, 2])
def test_a_ledger_of_before_is_taken_over(site, office, version):
    with site.serving() as server:
        asked(server)
    path = site.folder / "ledger.db"
    base = sqlite3.connect(str(path))
    base.executescript("CREATE TABLE before AS SELECT ueid, heard, passed, reason, certificate, class, until FROM node;"
                       "DROP TABLE node; ALTER TABLE before RENAME TO node; PRAGMA user_version={};{}".format(
                           version, "DROP TABLE standing;" if version == 1 else ""))
    base.close()
    with ledger(site) as found:
        (node,) = found.nodes()
    assert (node.ueid, node.passed, node.leaf, node.issuing, node.withdrawn) == (
        office.device.ueid, True, None, None, False)
    with site.serving() as server:
        made, said = asked(server)
        assert [one.number for one in made] == [NOW + 1] * 3 and len(said.grants) == 3
    with ledger(site) as found:
        assert [entry.event for entry in found.audit()] == ["started", "granted", "started", "granted"]


def test_two_hundred_nodes_at_once(site, office):
    """Four at a time, as two cores allow; each gets its own numbers and stands as passed."""
    nodes = [another(office.device, "node {}".format(number)) for number in range(200)]
    chains = {node.ueid: office.issue(device=node) for node in nodes}
    listed = "".join("[node.n{}]\nueid = \"{}\"\n".format(number, node.ueid.hex()) for number, node in enumerate(nodes))
    with site.serving("[limits]\nper_address = 1000\n" + listed) as server:
        def attest(node):
            return server.grants(server.evidence(node, None, chains[node.ueid]))

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(attest, nodes))
    numbers = [grant.open_grant(one).number for grants in made for one in grants]
    assert len(set(numbers)) == 200 and len(numbers) == 600
    assert {standing(site, node) for node in nodes} == {Standing.PASSED}
    with ledger(site) as found:
        assert len(list(found.audit())) == 201


# ----------------------------------------------------------------------------------------------------------- reports


def report(server, device=None, **more):
    server.client.report(server.evidence(device, **more))


def test_a_fleet_that_reports_is_passed_for_weeks_and_given_nothing(site, office):
    """Every six hours, as its timer asks; the city's lists are renewed as they are in earnest."""
    with site.serving("[limits]\nper_device = 1000\nper_address = 10000\n") as server:
        made, _ = asked(server)
        for hours in range(6, 28 * 24 + 1, 6):
            site.clock.now_s = NOW + hours * 3600
            if hours % 144 == 0:
                site.put("hardware.crl", chain.pem([office.crl("hardware", site.clock.now_s)]))
            assert standing(site, office.device, site.clock.now_s) is Standing.PASSED, "still"
            report(server)
            assert standing(site, office.device, site.clock.now_s) is Standing.PASSED
        last_s = site.clock.now_s
    for after_s, said in ((DAY_S, Standing.PASSED), (DAY_S + 1, Standing.EXPIRED), (2 * DAY_S + 1, Standing.SILENT)):
        assert standing(site, office.device, last_s + after_s) is said
    with ledger(site) as found:
        assert [found.last_number(one.slot) for one in made] == [one.number for one in made], "no number was used"
        log = list(found.audit())
    assert [entry.event for entry in log] == ["started", "granted"] + ["reported"] * 112
    assert [entry.time_s for entry in log[2:]] == [NOW + hours * 3600 for hours in range(6, 28 * 24 + 1, 6)]
    assert {(entry.ueid, entry.details["device"]) for entry in log[1:]} == {
        (office.device.ueid, log[1].details["device"])}


def test_a_report_is_judged_as_any_evidence(site, server, office):
    evidence = server.evidence()
    report(server)
    assert standing(site, office.device) is Standing.PASSED
    server.client.report(evidence)
    assert "is not out" in server.refused(evidence, keyprotocol.REPORT)[1], "good once"
    nonce = server.challenge(office.device)
    claims = changed(office.device.claims(nonce), dbgstat=0)
    status, reason = server.refused(server.evidence(nonce=nonce, claims=claims), keyprotocol.REPORT)
    assert status == 403 and "debugging is enabled" in reason
    assert standing(site, office.device) is Standing.REFUSED
    site.seen()
    assert "is not listed" in server.refused(server.evidence(), keyprotocol.REPORT)[1]
    assert server.refused(b"", keyprotocol.REPORT)[0] == 400


def test_one_answer_is_not_taken_for_the_other(site, server):
    """Whoever is between them cannot: but a server that confuses its paths is noticed."""
    with pytest.raises(PackageError):
        keyprotocol.read_grants(keyprotocol.reported())
    with pytest.raises(PackageError):
        keyprotocol.read_reported(keyprotocol.grants([b"g"], b"f"))


def test_a_report_gives_nothing_back_that_was_withdrawn(site, desk, come, office, capsys):
    come()
    come("--revoke")
    with site.serving() as server:
        site.clock.now_s += 3600
        report(server)
        assert standing(site, office.device, site.clock.now_s) is Standing.WITHDRAWN
        asked(server)
        assert standing(site, office.device, site.clock.now_s) is Standing.PASSED


def test_reports_are_among_those_that_a_device_may_make_in_an_hour(site, office):
    with site.serving("[limits]\nper_device = 2\n") as server:
        report(server)
        report(server)
        status, reason = server.refused(server.evidence(), keyprotocol.REPORT)
        assert status == 429 and "asks too often" in reason


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_nonce_is_good_once(site, server, office):
    evidence = server.evidence()
    server.grants(evidence)
    status, reason = server.refused(evidence)
    assert status == 403 and "is not out: each is good once" in reason
    assert standing(site, office.device) is Standing.PASSED  # whoever copied it does nobody harm


def test_a_nonce_is_used_up_by_evidence_that_is_refused(server, office):
    nonce = server.challenge(office.device)
    claims = changed(office.device.claims(nonce), dbgstat=0)
    assert "debugging is enabled" in server.refused(server.evidence(nonce=nonce, claims=claims))[1]
    assert "is not out" in server.refused(server.evidence(nonce=nonce))[1]


def test_a_nonce_survives_a_restart_and_is_still_good_once(site, office):
    with site.serving() as server:
        nonce = server.challenge(office.device)
    with site.serving() as server:
        evidence = server.evidence(nonce=nonce)
        assert len(server.grants(evidence)) == 3
    with site.serving() as server:
        assert "is not out" in server.refused(evidence)[1]


def test_a_nonce_that_this_server_never_drew_is_refused(site, server):
    evidence = server.evidence(nonce=bytes(32))
    assert server.refused(evidence)[0] == 403
    site.put("agreement.cose", b"")  # which is not even looked at: strangers do not make a server work
    assert server.refused(evidence)[0] == 403


def test_a_nonce_runs_out(site, server):
    evidence = server.evidence()
    site.clock.now_s += 301
    status, reason = server.refused(evidence)
    assert status == 403 and "its nonce was drawn 301 s ago, more than 300" in reason


def test_a_nonce_long_past_is_forgotten(site, server, office):
    evidence = server.evidence()
    site.clock.now_s += 601
    server.challenge(office.device)
    assert "is not out" in server.refused(evidence)[1]


def test_evidence_of_another_node_is_refused(site, server, office):
    other = another(office.device, "other")
    nonce = server.challenge(office.device)
    status, reason = server.refused(server.evidence(other, nonce, office.issue(device=other)))
    assert status == 403 and "evidence is of device {}, asked was {}".format(
        other.ueid.hex(), office.device.ueid.hex()) in reason
    assert standing(site, other) is Standing.REFUSED and standing(site, office.device) is Standing.SILENT


def test_a_certificate_of_another_node_is_refused(site, server, office):
    other = another(office.device, "other")
    assert server.refused(server.evidence(other))[0] == 403
    assert standing(site, other) is standing(site, office.device) is Standing.SILENT


def test_a_revoked_device_is_refused_and_called_so_as_soon_as_the_list_is_there(
        site, tmp_path_factory, ring, city, terms, office, monkeypatch, capsys):
    own = Office(tmp_path_factory.mktemp("own") / "ca")
    (site.folder / "own").mkdir()
    site = Site(site.folder / "own", own, ring, city, terms)
    def listed(now_s=NOW):
        monkeypatch.setattr(time, "time", lambda: now_s)
        assert city_program.main(["nodes", "--json", "--config", str(site.folder / configs.FILE)]) == 0
        return [one["standing"] for one in json.loads(capsys.readouterr().out)]

    with site.serving() as server:
        server.grants(server.evidence())
        assert listed() == ["passed"]
        own.authority.revoke("board-1", NOW - 60, STOLEN)
        site.put("hardware.crl", own.authority.crl("hardware", PASSPHRASE, NOW - 60))
        # It need not come once more, nor ever: and a list that is old by then tells as well.
        assert listed() == listed(NOW + 60 * DAY_S) == ["revoked"]
        status, reason = server.refused(server.evidence())
        assert status == 403 and "revoked" in reason
        assert standing(site, own.device) is Standing.REFUSED and listed() == ["revoked"]
        # A list that somebody else made is an error, not one that says nothing.
        site.put("hardware.crl", chain.pem([office.crl("hardware")]))
        assert city_program.main(["nodes", "--config", str(site.folder / configs.FILE)]) == 76
        assert "revocation list of the hardware class: was not issued by" in capsys.readouterr().err


def test_a_list_that_gets_old_is_warned_of_in_time(site, office, caplog):
    """A device is refused only once the list has run out: a city that forgets to make the next is told before."""
    for class_ in ("hardware", "emulated"):
        site.put(class_ + ".crl", office.authority.crl(class_, PASSPHRASE, NOW - 3 * DAY_S))
    with site.serving() as server:
        server.grants(server.evidence())
    assert "revocation list" not in caplog.text
    site.put("hardware.crl", office.authority.crl("hardware", PASSPHRASE, NOW - 4 * DAY_S))
    with site.serving() as server:
        for _ in range(2):
            server.grants(server.evidence())
    said = [one.getMessage() for one in caplog.records if "revocation list" in one.getMessage()]
    assert len(said) == 1 and "hardware: good until" in said[0] and "`edged-city ca crl`" in said[0]


def test_an_expired_certificate_is_refused(server, office):
    old = office.issue(now_s=NOW - 100 * DAY_S, days=99)
    status, reason = server.refused(server.evidence(certificates=old))
    assert status == 403 and "device certificate" in reason


def test_an_emulated_device_is_refused_unless_that_is_configured(site, office):
    def evidence(server):
        return server.evidence(office.emulated, None, office.chains["emulated"])

    with site.serving() as server:
        assert "the device is emulated" in server.refused(evidence(server))[1]
    assert standing(site, office.emulated) is Standing.REFUSED
    site.put("reference.cose", signed_references(REFERENCES["emulated"]))
    with site.serving("[policy]\nallow_emulated = true\n") as server:
        assert len(server.grants(evidence(server))) == 3


@pytest.mark.parametrize("changes, reason", [
    (dict(dbgstat=0), "debugging is enabled"), (dict(oemboot=False), "not fused"), ({"class_": "emulated"}, "emulated"),
    (dict(submods={"key": {-65538: b"x" * 32, -65539: 1, -65540: b"u" * 16}}), "the key application's UUID")])
def test_a_state_that_nobody_should_trust_is_refused(server, office, changes, reason):
    nonce = server.challenge(office.device)
    status, said = server.refused(server.evidence(nonce=nonce, claims=changed(office.device.claims(nonce), **changes)))
    assert status == 403 and reason in said and "\n" not in said


def test_evidence_with_an_altered_byte_is_refused_and_put_down_to_nobody(site, server, office):
    evidence = bytearray(server.evidence())
    place = bytes(evidence).index(b"b" * 32)  # bootseed
    evidence[place] ^= 1
    status, reason = server.refused(bytes(evidence))
    assert status == 403 and "its signature does not verify" in reason
    assert standing(site, office.device) is Standing.SILENT


def test_whatever_is_altered_in_evidence_is_an_answer_and_no_grant(site, office):
    """Asked directly, without the network: every 13th byte of evidence and of its certificates."""
    config = site.configure("[limits]\nper_device = 1000\n")
    desk = ServerOffice(config, site.holder(), site.clock)
    try:
        for first in range(13):
            nonce = keyprotocol.read_challenge(desk.challenge(keyprotocol.ask(office.device.ueid)).body)
            evidence = office.device.attests(office.device.claims(nonce), office.chains["hardware"])
            for place in range(first, len(evidence), 13 * 13):
                broken = bytearray(evidence)
                broken[place] ^= 1 << place % 8
                answer = desk.evidence(bytes(broken))
                assert answer.status in (400, 403) and keyprotocol.read_refusal(answer.body).isprintable()
    finally:
        desk.close()


def test_a_reason_does_not_reach_a_terminal_as_anything_but_text(site, server, office, caplog):
    nonce = server.challenge(office.device)
    claims = dict(office.device.claims(nonce), **{"\x1b[2J\n": 1})
    status, reason = server.refused(server.evidence(nonce=nonce, claims=claims))
    assert status == 400 and reason.isprintable() and "\x1b" not in caplog.text


def test_what_is_no_evidence_is_malformed(server):
    for body in (b"", b"\0", b"\xd2\x80", keyprotocol.ask(b"\1" * 17)):
        assert server.refused(body)[0] == 400


def test_what_is_no_question_is_malformed(server):
    for body in (b"", b"{}", keyprotocol.ask(b"\1" * 16), keyprotocol.challenge(bytes(32))):
        assert server.refused(body, keyprotocol.CHALLENGE)[0] == 400


def test_a_node_that_is_not_listed_gets_no_challenge(site, office):
    with site.serving("[node.gate]\nueid = \"{}\"\n".format(office.emulated.ueid.hex())) as server:
        status, reason = server.refused(keyprotocol.ask(office.device.ueid), keyprotocol.CHALLENGE)
        assert status == 403 and "is none of the nodes that are listed here" in reason
        server.challenge(office.emulated)


def test_out_of_an_agreements_time_nobody_is_refused_and_nothing_is_granted(site, server, office, caplog):
    server.grants(server.evidence())
    evidence = server.evidence()
    site.put("agreement.cose", site.signed(replace(site.terms, until_s=NOW)))
    status, reason = server.refused(evidence)
    assert status == 503 and reason == "out of order: its operator's log says why"
    assert "put the one in force there" in caplog.text and standing(site, office.device) is Standing.PASSED
    site.put("agreement.cose", site.signed(site.terms))
    assert len(server.grants(evidence)) == 3  # its nonce was not used up


def test_a_new_agreement_is_in_force_once_it_is_there(site, server):
    newer = replace(site.terms, number=4)
    site.put("agreement.cose", site.signed(newer))
    assert {grant.open_grant(one).agreement for one in server.grants(server.evidence())} == {newer.digest}


def test_two_roots_are_none(site, office):
    site.put("root.pem", (site.folder / "root.pem").read_bytes() * 2)
    with pytest.raises(PackageError, match="root.pem: 2 certificates, not the root's alone"):
        with site.serving():
            pass


def test_an_agreement_that_names_a_key_which_is_not_here_stops_the_server(site, terms):
    site.put("agreement.cose", site.signed(replace(terms, data_key=b"D" * 16)))
    with pytest.raises(KeyRefused, match="names data key 4444.*not among these keys"):
        with site.serving():
            pass


def test_reference_values_of_another_signer_stop_the_server(site):
    site.put("reference.cose", signed_references(key=OTHER))
    with pytest.raises(VerificationFailed, match="reference values: are signed by none"):
        with site.serving():
            pass


def test_an_agreement_that_another_signed_stops_the_server(site, terms):
    signed = site.signed(terms)
    site.put("agreement.cose", signed[:-1] + bytes([signed[-1] ^ 1]))
    with pytest.raises(VerificationFailed, match="the query data owner's signature does not verify"):
        with site.serving():
            pass


def test_another_partys_keys_do_not_serve(site, terms, tmp_path):
    keys.make_keys(str(tmp_path / "elsewhere"))
    with pytest.raises(KeyRefused, match="its query data owner is {}, these keys are of".format(terms.qdo.hex())):
        of_city(str(tmp_path / "elsewhere")).due(terms)
    with pytest.raises(KeyRefused, match="its model owner is"):
        of_owner(keyring.generate()).due(terms)


# ------------------------------------------------------------------------------------------------------------ limits


def test_a_request_that_is_too_large_is_refused(server):
    status, reason = server.refused(bytes(keyprotocol.REQUEST_MAX + 1))
    assert status == 413 and "at most 16384 bytes" in reason


def test_a_request_that_says_nothing_of_its_size_is_cut_off_at_the_limit(server):
    connection = server.connection()
    connection.request("POST", keyprotocol.EVIDENCE, (bytes(1024) for _ in range(64)), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    assert connection.getresponse().status == 413
    connection.close()


def test_a_compressed_request_is_not_expanded(server, office):
    status, _, _ = server.post(keyprotocol.EVIDENCE, zlib.compress(bytes(1 << 20)), **{"Content-Encoding": "deflate"})
    assert status == 400


@pytest.mark.parametrize("sent", [b"", b"POST /evid",
                                  b"POST /evidence HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"])
def test_a_slow_client_is_cut_off_and_nobody_waits_for_it(site, sent):
    with site.serving("[limits]\ntimeout_s = 3.0\n") as server:
        began = time.monotonic()
        slow = server.connection()
        slow.connect()
        slow.sock.sendall(sent)
        assert len(server.grants(server.evidence())) == 3 and time.monotonic() - began < 3
        assert ended(slow.sock) and 2 < time.monotonic() - began < 9
        slow.close()


def test_a_slow_client_does_not_keep_the_server_from_stopping(site):
    with site.serving("[limits]\ntimeout_s = 2.0\n") as server:
        slow = server.connection()
        slow.connect()
        slow.sock.sendall(b"POST /evidence HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
        time.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    slow.close()


def ended(connection):
    """Waits until the other side has closed it."""
    try:
        while connection.recv(4096):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return True


def test_who_does_not_even_shake_hands_is_cut_off(site):
    with site.serving("[limits]\ntimeout_s = 1.0\n") as server:
        with socket.create_connection((LOOPBACK, server.port), timeout=10) as silent:
            assert ended(silent)


def test_no_other_request_is_answered(server):
    for method, path, status in (("GET", "/challenge", 405), ("POST", "/", 404), ("POST", "/../etc/passwd", 404)):
        connection = server.connection()
        connection.request(method, path)
        assert connection.getresponse().status == status
        connection.close()


def test_what_is_not_http_is_not_answered_for_long(server):
    connection = server.connection()
    connection.connect()
    connection.sock.sendall(b"\0\1\2\3\r\n\r\n")
    assert ended(connection.sock)
    connection.close()


def test_without_tls_nothing_is_said(server):
    with socket.create_connection((LOOPBACK, server.port), timeout=10) as plain:
        plain.sendall(b"POST /challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        found = b""
        try:
            found = plain.recv(4096)
        except ConnectionError:
            pass
        assert b"HTTP" not in found


def test_an_older_tls_is_refused(server):
    context = ssl.create_default_context(cafile=str(server.site.folder / "server.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((LOOPBACK, server.port), timeout=10) as plain:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname=LOOPBACK)


def test_an_address_that_asks_too_often_waits(site, office):
    with site.serving("[limits]\nper_address = 3\n") as server:
        for _ in range(3):
            server.challenge(office.device)
        status, headers, body = server.post(keyprotocol.CHALLENGE, keyprotocol.ask(office.device.ueid))
        assert status == 429 and 1 <= int(headers["Retry-After"]) <= 21
        assert "this address asks too often" in keyprotocol.read_refusal(body)
        with pytest.raises(ServerError, match="this address asks too often: wait"):
            server.challenge(office.device)


def test_a_device_that_asks_too_often_waits_wherever_it_asks_from(site, office):
    other = another(office.device, "other")
    with site.serving("[limits]\nper_device = 2\n") as server:
        for _ in range(2):
            server.grants(server.evidence())
        status, reason = server.refused(server.evidence())
        assert status == 429 and "device {} asks too often".format(office.device.ueid.hex()) in reason
        assert len(server.grants(server.evidence(other, None, office.issue(device=other)))) == 3


def test_in_another_devices_name_nobody_uses_up_its_share(site, office):
    with site.serving("[limits]\nper_device = 1\n") as server:
        stranger = Device(attest=office.emulated.attest)
        for _ in range(3):
            assert server.refused(server.evidence(stranger))[0] == 403
        assert len(server.grants(server.evidence())) == 3


def half_open(server, address, count):
    """Connections of an address that never shake hands."""
    return [socket.create_connection((LOOPBACK, server.port), timeout=10, source_address=(address, 0))
            for _ in range(count)]


def still_open(sockets):
    """Those that the server has not closed."""
    poll = select.poll()
    for one in sockets:
        poll.register(one, select.POLLRDHUP)
    gone = {descriptor for descriptor, _ in poll.poll(0)}
    return [one for one in sockets if one.fileno() not in gone]


def test_an_address_gets_no_more_half_open_connections_than_others_and_the_others_are_served(site):
    with site.serving() as server:
        held = half_open(server, "127.0.0.2", 200)
        assert len(server.client.grants(server.evidence()).grants) == 3
        assert eventually(lambda: len(still_open(held)) == 32)  # as Limits has it
        refused = server.connection(source_address=("127.0.0.2", 0))
        with pytest.raises((ConnectionError, ssl.SSLError)):
            refused.connect()
        for one in held:
            one.close()
        assert eventually(lambda: is_served(server, site.office.device))


def test_a_flood_of_half_open_connections_of_many_addresses_gives_way_to_honest_nodes(site):
    """The oldest of them goes: who shakes hands at once is served while the flood goes on."""
    with site.serving("[limits]\nconnections = 40\nconnections_per_address = 8\n") as server:
        held = []
        for round_ in range(20):
            held += half_open(server, "127.1.{}.1".format(round_ + 1), 8)
            if round_ % 5 == 4:
                assert len(server.client.grants(server.evidence()).grants) == 3
        assert eventually(lambda: len(still_open(held)) <= 40)
        assert not still_open(held[:80]) and still_open(held[-8:])
        for one in held:
            one.close()


def shaken(server, *addresses):
    """A connection of each, after its handshake."""
    made = [server.connection(source_address=(address, 0)) for address in addresses]
    for one in made:
        one.connect()
    return made


@pytest.fixture
def asleep(monkeypatch):
    """The office is, over the first question, until it is woken up: (what it was asked, the alarm)."""
    alarm, seen, challenge = threading.Event(), [], ServerOffice.challenge

    def slow(self, body):
        seen.append(body)
        assert alarm.wait(30)
        return challenge(self, body)

    monkeypatch.setattr(ServerOffice, "challenge", slow)
    return seen, alarm


def ask(connection, device):
    connection.request("POST", keyprotocol.CHALLENGE, keyprotocol.ask(device.ueid))


def test_who_has_shaken_hands_and_asks_nothing_gives_way_to_who_asks(site, office):
    with site.serving("[limits]\nconnections = 4\nconnections_per_address = 4\n") as server:
        idle = shaken(server, *("127.1.{}.1".format(place) for place in range(4)))
        assert is_served(server, office.device)
        assert eventually(lambda: len(still_open([one.sock for one in idle])) < 4)
        assert len(server.client.grants(server.evidence()).grants) == 3
        for one in idle:
            one.close()


def test_who_has_asked_does_not_give_way_to_who_has_not(site, office, asleep):
    seen, alarm = asleep
    with site.serving("[limits]\nconnections = 4\nconnections_per_address = 4\n") as server:
        asking = shaken(server, *("127.1.{}.1".format(place) for place in range(4)))
        for one in asking:
            ask(one, office.device)
        time.sleep(1)
        assert not is_served(server, office.device)
        held = half_open(server, "127.0.0.9", 8)
        assert eventually(lambda: not still_open(held)) and len(seen) == 1
        alarm.set()
        for one in asking:
            assert one.getresponse().status == 200
            one.close()


def test_one_strangers_neighbourhood_never_has_more_than_half_of_the_places(site, office, asleep):
    """Each of its addresses stays within the limit of one, and sends a whole request."""
    _, alarm = asleep
    with site.serving("[limits]\nconnections = 16\nconnections_per_address = 4\n") as server:
        honest = shaken(server, "127.1.1.1", "127.1.2.1")
        flood = half_open(server, "127.9.9.250", 4)
        asking = shaken(server, *("127.9.9.{}".format(1 + place) for place in range(8)))
        assert eventually(lambda: not still_open(flood)), "its own silent ones give way, nobody else's"
        for one in asking:
            ask(one, office.device)
        time.sleep(1)
        more = half_open(server, "127.9.9.100", 4)
        assert eventually(lambda: not still_open(more)) and len(still_open([one.sock for one in asking])) == 8
        honest += shaken(server, *("127.2.{}.1".format(place) for place in range(6)))
        assert len(still_open([one.sock for one in honest])) == 8
        alarm.set()
        for one in honest:
            ask(one, office.device)
        for one in honest + asking:
            assert one.getresponse().status == 200
            one.close()


def test_requests_that_were_left_behind_fill_no_queue_and_are_not_decided(site, office, asleep):
    """Each leaves a place free for the next one, and so any number of them could be made."""
    seen, alarm = asleep
    with site.serving("[limits]\nconnections = 16\nper_address = 1000\n") as server:
        waiting = shaken(server, *("127.1.{}.1".format(place % 4) for place in range(16)))
        ask(waiting[0], office.device)
        assert eventually(lambda: seen)
        for one in waiting[1:]:
            ask(one, office.device)
        time.sleep(1)
        for one in waiting[1::2]:
            one.close()
        status, headers, body = eventually(lambda: answered(server, office.device))
        assert status == 503 and int(headers["Retry-After"]) > 0
        assert "too many ask at once" in keyprotocol.read_refusal(body)
        alarm.set()
        for one in waiting[::2]:
            assert one.getresponse().status == 200
            one.close()
        assert eventually(lambda: is_served(server, office.device))
        assert len(seen) == 8 + 1, "of those that stayed, and the last"


def answered(server, device):
    try:
        return server.post(keyprotocol.CHALLENGE, keyprotocol.ask(device.ueid))
    except (ConnectionError, ssl.SSLError):  # no place is free yet
        return None


def test_who_shakes_hands_a_byte_at_a_time_is_cut_off_in_time(site):
    hello = ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(site.folder / "server.pem"))
    try:
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=LOOPBACK).do_handshake()
    except ssl.SSLWantReadError:
        pass
    with site.serving("[limits]\ntimeout_s = 2.0\n") as server:
        slow, = half_open(server, LOOPBACK, 1)
        began = time.monotonic()
        for octet in hello.read():
            if not still_open([slow]):
                break
            slow.sendall(bytes([octet]))
            time.sleep(0.05)
        assert ended(slow) and 1 < time.monotonic() - began < 8
        assert is_served(server, site.office.device)


def test_all_places_are_free_again_once_everybody_has_gone(site):
    """However they went: without a word, in the handshake, refused, or served."""
    with site.serving("[limits]\nconnections = 6\nconnections_per_address = 3\nper_address = 1000\n") as server:
        for _ in range(5):
            held = half_open(server, LOOPBACK, 5)
            held[0].sendall(b"no TLS at all")
            for one in held:
                one.close()
            assert eventually(lambda: is_served(server, site.office.device))
        three = [server.connection() for _ in range(3)]
        for one in three:
            one.connect()
        for one in three:
            one.close()
        assert eventually(lambda: is_served(server, site.office.device))


@pytest.mark.slow
def test_a_fleet_of_three_hundred_nodes_at_once_is_served_within_the_usual_limits(site, office):
    """All at the same moment, each from an address of its own, with no number configured: nobody is refused."""
    count, patience_s = 300, 300.0  # how long a slow machine takes is not the question here
    nodes = [another(office.device, "node {}".format(number)) for number in range(count)]
    chains = [office.issue(device=node) for node in nodes]
    ready = threading.Barrier(count)
    with site.serving("[limits]\ntimeout_s = {}\n".format(patience_s)) as server:
        def post(path, body, number):
            address = "127.{}.0.{}".format(1 + number // 100, 1 + number % 100)  # of one neighbourhood 256 at once
            connection = server.connection(patience_s, source_address=(address, 0))
            try:
                connection.request("POST", path, body)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        def attest(number):
            ready.wait(patience_s)
            status, body = post(keyprotocol.CHALLENGE, keyprotocol.ask(nodes[number].ueid), number)
            assert status == 200, body
            nonce = keyprotocol.read_challenge(body)
            status, body = post(keyprotocol.EVIDENCE, nodes[number].attests(
                nodes[number].claims(nonce), chains[number]), number)
            assert status == 200, body
            return keyprotocol.read_grants(body)[0]

        with ThreadPoolExecutor(count) as pool:
            made = list(pool.map(attest, range(count)))
    numbers = [grant.open_grant(one).number for grants in made for one in grants]
    assert len(numbers) == 3 * count and len(set(numbers)) == count
    assert {standing(site, node) for node in nodes} == {Standing.PASSED}


def test_connections_beyond_the_limit_of_an_address_are_closed(site, office):
    with site.serving("[limits]\nconnections_per_address = 2\n") as server:
        held = [server.connection() for _ in range(2)]
        for one in held:
            one.connect()
        assert eventually(lambda: not is_served(server, office.device))
        for one in held:
            one.close()
        assert eventually(lambda: is_served(server, office.device))


def is_served(server, device):
    try:
        return len(server.challenge(device)) == keyprotocol.NONCE_BYTES
    except ServerError:
        return False


def eventually(holds):
    """A connection counts once the server has seen it, which its client does not wait for."""
    deadline_s = time.monotonic() + 10
    while True:
        found = holds()
        if found or time.monotonic() > deadline_s:
            return found
        time.sleep(0.05)


def test_buckets_fill_again_and_forget_who_asked_longest_ago():
    buckets = Buckets(2, 10.0, kept=2)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0, 0, 5.0]
    assert buckets.take("a", 4.0) == pytest.approx(1.0) and buckets.take("a", 5.0) == 0
    assert buckets.take("a", 1000.0) == buckets.take("a", 1000.0) == 0 and buckets.take("a", 1000.0) > 0
    buckets.take("b", 1000.0)
    buckets.take("c", 1000.0)
    assert buckets.take("a", 1000.0) == 0  # forgotten


def test_all_that_one_customer_may_have_is_one_neighbourhood():
    assert neighbourhood_of("2001:db8:0:1::1") == neighbourhood_of("2001:db8:0:ffff::2") == "2001:db8::/48"
    assert neighbourhood_of("2001:db8:1::1") != neighbourhood_of("2001:db8::1")
    assert neighbourhood_of("::ffff:10.0.0.1") == neighbourhood_of("10.0.0.255") == "10.0.0.0/24"
    assert neighbourhood_of("::1") == "::/48" and neighbourhood_of("") == neighbourhood_of(None) == ""


def test_an_ipv6_customer_is_one_address():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") == "10.0.0.1"
    assert network_of("fe80::1%eth0") == "fe80::/64" and network_of(None) == network_of("") == ""


# ------------------------------------------------------------------------------------------------- files and commands


@pytest.mark.parametrize("more, reason", [
    ("ledgers = 1\n", "ledgers: unknown key"), ("[limits]\nper_adress = 1\n", "limits.per_adress: unknown key"),
    ("[policy]\nsilent_s = 100\n", "policy.silent_s: 100: at least expires_s, 86400"),
    ("[policy]\nnonce_s = 9\n", "policy.nonce_s: 9"), ("[limits]\nper_device = 0\n", "limits.per_device: 0"),
    ("[node.Gate]\nueid = \"{}\"\n".format("01" * 17), "node.Gate: not a name"),
    ("[node.a]\nueid = \"{0}\"\n[node.b]\nueid = \"{0}\"\n".format("01" * 17), "node.b.ueid: is that of node a, too"),
    ("[node.a]\nueid = \"01\"\n", "node.a.ueid: \"01\": 34 digits")])
def test_a_configuration_that_is_wrong_is_one_line_with_file_line_and_key(site, more, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        site.configure(more)
    assert "keyserver.toml:" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key, value", [("bind", "nowhere"), ("bind", "a:65536"), ("mo", "00")])
def test_a_value_that_is_wrong_is_named(site, key, value):
    site.configure()
    path = site.folder / configs.FILE
    path.write_text("\n".join("{} = \"{}\"".format(key, value) if line.startswith(key + " ") else line
                              for line in path.read_text().splitlines()))
    with pytest.raises(ConfigError, match=key + ": \"" + value):
        configs.load(str(path))


@pytest.mark.parametrize("said, what", [
    ("", "devices: is missing: name a file"), ("trust_authority = false", "devices: is missing"),
    ('devices = "devices"\ntrust_authority = true', "devices: with trust_authority, one of both"),
    ('devices = ["{}"]'.format("0a" * 32), "devices: .*a string is needed"),
    ("trust_authority = 1", "trust_authority: 1: true or false is needed")])
def test_nobody_believes_an_authority_without_having_said_so(site, said, what):
    with pytest.raises(ConfigError, match="keyserver.toml:[0-9]+: " + what) as caught:
        site.configure(devices=said)
    assert "\n" not in str(caught.value)


def test_who_believes_the_authority_is_told_so_at_the_start(site, terms, capsys):
    site.put("agreement.cose", site.signed(replace(terms, from_s=0, until_s=NOW)))
    site.configure(devices="trust_authority = true")
    (site.folder / "server.pem").unlink()
    assert city_program.main(["serve", "--dir", str(site.city), "--config", str(site.folder / configs.FILE)]) == 66
    assert "trust_authority: whatever {} certifies gets keys, be it a device or not\n".format(
        site.folder / "root.pem") in capsys.readouterr().err


def test_signers_are_keys(site):
    site.configure()
    path = site.folder / configs.FILE
    path.write_text(path.read_text().replace("signers = [\"", "signers = [\"x"))
    with pytest.raises(ConfigError, match="signers: \"x.*64 digits"):
        configs.load(str(path))


def serve(site, capsys, *more):
    """What `edged-city serve` says that cannot start."""
    if not (site.folder / configs.FILE).exists():
        site.configure()
    code = city_program.main(["serve", "--dir", str(site.city), "--config", str(site.folder / configs.FILE), *more])
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return code, err


def test_a_private_key_that_others_may_read_is_refused(site, capsys):
    (site.folder / "server.key").chmod(0o640)
    code, err = serve(site, capsys)
    assert code == 77 and "server.key: mode 0640 lets others at it" in err


def test_a_private_key_of_another_certificate_is_refused(site, capsys):
    tls(site.folder, "other")
    (site.folder / "server.key").write_bytes((site.folder / "other.key").read_bytes())
    code, err = serve(site, capsys)
    assert code == 78 and "are no pair in PEM" in err


def test_a_private_key_under_a_passphrase_is_refused_and_nobody_is_asked(site, capsys):
    path = site.folder / "server.key"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.BestAvailableEncryption(b"secret")))
    code, err = serve(site, capsys)
    assert code == 78 and "or the key is under a passphrase" in err


@pytest.mark.parametrize("name", ["server.pem", "server.key", "root.pem", "hardware.crl", "reference.cose",
                                  "agreement.cose", "devices"])
def test_a_file_that_is_missing_is_named(site, capsys, name):
    site.put("agreement.cose", site.signed(replace(site.terms, from_s=0)))  # in force now
    (site.folder / name).unlink()
    code, err = serve(site, capsys)
    assert code == 66 and name in err


def test_a_ledger_that_is_none_is_left_alone(site):
    site.put("ledger.db", b"not a database, and longer than a header of one would be" * 40)
    with pytest.raises(SpoolError, match="ledger.db"):
        with site.serving():
            pass
    assert (site.folder / "ledger.db").read_bytes().startswith(b"not a database")


def test_an_address_in_use_is_one_line(site):
    with site.serving() as server:
        site.bind = "{}:{}".format(LOOPBACK, server.port)
        with pytest.raises(ServerError, match="bind 127.0.0.1:{}: ".format(server.port)):
            with site.serving():
                pass


@pytest.mark.parametrize("command", ["serve", "nodes", "audit"])
def test_without_a_configuration_it_is_said_where_there_is_an_example(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    more = ["--dir", "city"] if command == "serve" else []
    assert city_program.main([command, *more]) == 66
    assert capsys.readouterr().err == (
        "edged-city: {}: No such file or directory: write one, systemd/keyserver.toml.example explains each key, or "
        "name it by --config\n".format(tmp_path / "keyserver.toml"))


def test_nodes_and_audit_without_a_ledger_say_so(site, capsys):
    site.configure()
    for name in ("nodes", "audit"):
        assert city_program.main([name, "--config", str(site.folder / configs.FILE)]) == 66
        assert "there is no ledger: `serve` makes one" in capsys.readouterr().err


def test_the_command_serves_until_it_is_told_to_stop(site, terms, tmp_path):
    """As a process, with the owner's ring; the agreement is for now."""
    site.put("agreement.cose", site.signed(replace(terms, from_s=0, until_s=(1 << 32) - 1)))
    site.configure("[policy]\nallow_emulated = true\n")
    for name, content in (("ring", keyring.seal(site.ring, PASSPHRASE, 1 << 4)), ("passphrase", PASSPHRASE)):
        site.put(name, content)
        (site.folder / name).chmod(0o600)
    process = subprocess.Popen(
        [sys.executable, "-m", "edged.owner", "serve", "--keys", "ring", "--passphrase-file", "passphrase"],
        cwd=str(site.folder), stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(owner_program.__file__))))
    try:
        assert process.stderr.readline() == b"devices that are EMULATED get keys: they protect nothing\n"
        line = process.stderr.readline().decode()
        assert line.startswith("listening on 127.0.0.1:"), line
        client = KeyServer(line.split()[-1], str(site.folder / "server.pem"))
        assert len(client.challenge(site.office.device.ueid)) == 32
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and process.stderr.read() == b""
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


@pytest.mark.parametrize("odd", [1 << 20000, [1 << 20000], {1 << 20000: 1}], ids=["number", "list", "map"])
def test_a_number_of_thousands_of_digits_is_malformed_like_anything_that_is_tagged(server, site, odd):
    body = canonical.encode({"form": "edged challenge request 1", "ueid": odd})
    status, reason = server.refused(body, keyprotocol.CHALLENGE)
    assert status == 400 and "is not CBOR: a tag" in reason
    status, _ = server.refused(canonical.encode({odd if isinstance(odd, int) else 1: 2}), keyprotocol.CHALLENGE)
    assert status == 400


# -------------------------------------------------------------------------------------------------- without a server


@pytest.fixture
def desk(site, city, monkeypatch):
    """edged-city grant with these arguments: its exit code."""
    monkeypatch.setattr(ServerOffice.__init__, "__defaults__", (lambda: NOW,))
    site.configure()
    return lambda *given: city_program.main(
        ["grant", "--dir", str(city), "--config", str(site.folder / configs.FILE)] + list(given))


def test_grants_are_made_as_files_by_the_same_rules(site, desk, office, city, capsys, tmp_path):
    device = office.device
    assert desk("--challenge", device.ueid.hex()) == 0
    nonce = bytes.fromhex(capsys.readouterr().out.strip())
    evidence = device.attests(device.claims(nonce), office.chains["hardware"])
    (tmp_path / "evidence").write_bytes(evidence)
    assert desk("--evidence", str(tmp_path / "evidence"), "--out", str(tmp_path / "grants")) == 0
    said = capsys.readouterr().out.splitlines()
    assert [path.name for path in sorted((tmp_path / "grants").iterdir())] == [
        "1.grant", "2.grant", "3.grant", "floor-qdo"]
    assert len(said) == 4 and "data key of slot 1, number " in said[0]
    header, key = opened(device, (tmp_path / "grants" / "1.grant").read_bytes())
    assert key == (city / "data.key").read_bytes() and header.slot == 1
    assert standing(site, device) is Standing.PASSED
    assert desk("--evidence", str(tmp_path / "evidence"), "--out", str(tmp_path / "again")) == 76
    assert "each is good once" in capsys.readouterr().err and not (tmp_path / "again").exists()


@pytest.fixture
def come(desk, office, capsys, tmp_path):
    """The node's way to that command and back, with these arguments: the folder of what it was given."""
    device = office.device

    def come(*more):
        assert desk("--challenge", device.ueid.hex()) == 0
        nonce = bytes.fromhex(capsys.readouterr().out.splitlines()[-1])
        (tmp_path / "evidence").write_bytes(device.attests(device.claims(nonce), office.chains["hardware"]))
        out = tmp_path / "out-{}".format(nonce.hex())
        assert desk("--evidence", str(tmp_path / "evidence"), "--out", str(out), *more) == 0
        return out
    return come


def numbers_in(folder):
    return {int(path.stem): grant.open_grant(path.read_bytes()).number for path in folder.glob("*.grant")}


def floor_in(folder):
    return dict(floor.open_floor((folder / "floor-qdo").read_bytes()).grants)


def test_grants_are_withdrawn_by_a_file(site, come, office, terms, capsys):
    come()
    site.put("agreement.cose", site.signed(replace(terms, number=4)))
    others = numbers_in(come())
    site.put("agreement.cose", site.signed(terms))
    capsys.readouterr()
    out = come("--revoke")
    assert [path.name for path in out.iterdir()] == ["floor-qdo"]
    assert "slot 1 from number {}".format(NOW + 1) in capsys.readouterr().out
    assert set(floor_in(out)) == {1, 2, 3, *others}, "those of the agreement beside it, too"
    assert all(floor_in(out)[slot] > number for slot, number in others.items())
    assert standing(site, office.device) is Standing.WITHDRAWN
    assert set(numbers_in(come()).values()) == {NOW + 2}
    assert standing(site, office.device) is Standing.PASSED
    with ledger(site) as found:
        log = [entry for entry in found.audit() if entry.event != "started"]
    assert [entry.event for entry in log] == ["granted", "granted", "withdrawn", "granted"]
    assert {"slot 1": NOW + 1}.items() <= log[2].details.items()


@pytest.mark.parametrize("granted, withdrawn", [("8", "0"), ("0", "8"), ("8", "8")])
def test_grants_are_withdrawn_in_whatever_slots_they_are(come, granted, withdrawn):
    """Not vouched for: who withdraws does not have to know with which switch they were given."""
    given = numbers_in(come("--first-slot", granted))
    said = floor_in(come("--first-slot", withdrawn, "--revoke"))
    assert set(given) <= set(said) and all(said[slot] > number for slot, number in given.items())
    slots = {int(withdrawn) + place for place in (1, 2, 3)}.union(given)
    assert set(said) == slots
    assert set(floor_in(come("--first-slot", "5"))) == {6, 7, 8}, "nor are they later"


def test_grants_are_withdrawn_where_the_ledger_was_lost(site, come, monkeypatch):
    given = numbers_in(come())
    for path in site.folder.glob("ledger.db*"):
        path.unlink()
    monkeypatch.setattr(ServerOffice.__init__, "__defaults__", (lambda: NOW + 60,))
    said = floor_in(come("--revoke"))
    assert set(said) == set(given) and all(said[slot] > number for slot, number in given.items())
    again = numbers_in(come())
    assert all(again[slot] >= number for slot, number in said.items())


@pytest.mark.parametrize("given, code, message", [
    (["--challenge", "00" * 17, "--revoke"], 2, "--revoke"),
    (["--challenge", "00" * 17, "--first-slot", "11"], 2, "0 to 10"),
    (["--challenge", "00"], 2, "--challenge"), (["--challenge", "00" * 17, "--out", "x"], 2, "go together"),
    (["--evidence", "README.md"], 2, "go together"), (["--evidence", "setup.cfg", "--out", "x"], 65, "evidence"),
    (["--evidence", "nowhere", "--out", "x"], 66, "nowhere")])
def test_what_is_no_request_for_grants_is_one_line(desk, capsys, given, code, message):
    assert desk(*given) == code
    said = capsys.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1 and not said.out
