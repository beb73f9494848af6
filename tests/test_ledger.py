"""What a key server remembers: which nodes passed, and a log that nobody alters unnoticed."""

import json
import logging
import sqlite3
import time

import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from edged import city as city_program  # noqa: E402
from edged import owner as owner_program  # noqa: E402
from edged.keyserver import config as configs  # noqa: E402
from edged.keyserver.holder import of_city, of_owner  # noqa: E402
from edged.keyserver.ledger import Node, Standing  # noqa: E402
from edged.trust import agreement_text  # noqa: E402
from evidence_cases import DAY_S, NOW, changed  # noqa: E402
from keyserver_cases import another, city, ledger, office, ring, server, site, terms  # noqa: E402, F401


@pytest.mark.parametrize("node, age_s, expected", [
    (dict(), 0, Standing.PASSED), (dict(), 100, Standing.PASSED), (dict(), 101, Standing.EXPIRED),
    (dict(), 200, Standing.EXPIRED), (dict(), 201, Standing.SILENT), (dict(), -1, Standing.SILENT),
    (dict(until_s=NOW - 1), 0, Standing.EXPIRED), (dict(passed=False), 0, Standing.REFUSED),
    (dict(passed=False), 201, Standing.SILENT)])
def test_a_result_expires_and_who_is_silent_never_passed(node, age_s, expected):
    given = Node(b"\1" * 17, NOW - age_s, True, "", b"c" * 32, "hardware", NOW + 1000)._replace(**node)
    assert given.standing(NOW, 100, 200) is expected


@pytest.mark.parametrize("node, age_s", [(dict(), 0), (dict(), 101), (dict(), 201), (dict(passed=False), 0)])
def test_who_was_revoked_taken_off_the_list_or_withdrawn_is_called_so_whatever_else(node, age_s):
    given = Node(b"\1" * 17, NOW - age_s, True, "", b"c" * 32, "hardware", NOW + 1000, withdrawn=True)._replace(**node)
    assert given.standing(NOW, 100, 200) is Standing.WITHDRAWN
    assert given.standing(NOW, 100, 200, listed=False) is Standing.UNLISTED
    assert given.standing(NOW, 100, 200, revoked=True, listed=False) is Standing.REVOKED


def test_who_is_taken_off_the_list_is_called_so_before_it_comes_again(site, office, capsys, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW + 5)

    def listed():
        assert city_program.main(["nodes", "--config", str(site.folder / configs.FILE)]) == 0
        return capsys.readouterr().out.split()[0]

    with site.serving() as server:
        server.grants(server.evidence())
        assert listed() == "passed"
        site.seen(office.emulated.attest)
        assert listed() == "unlisted"
        site.seen(office.device.attest)
        assert listed() == "passed"


def test_nodes_lists_who_passed_who_did_not_and_who_never_came(site, office, capsys, monkeypatch):
    listed = "".join("[node.{}]\nueid = \"{}\"\n".format(name, device.ueid.hex()) for name, device in (
        ("gate", office.device), ("mill", office.emulated), ("yard", another(office.device, "yard"))))
    with site.serving(listed) as server:
        server.grants(server.evidence())
        server.refused(server.evidence(office.emulated, None, office.chains["emulated"]))
    monkeypatch.setattr(time, "time", lambda: NOW + 5)
    assert city_program.main(["nodes", "--config", str(site.folder / configs.FILE)]) == 0
    rows = [line.split(None, 4) for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["passed", "gate"], ["refused", "mill"], ["silent", "yard"]]
    assert rows[1][4].startswith("the device is emulated")
    assert rows[0][4].startswith("certificate until ") and rows[0][4].count(":") == 2, "and no end of it is near"
    monkeypatch.setattr(time, "time", lambda: NOW + DAY_S + 1)
    assert owner_program.main(["nodes", "--json", "--config", str(site.folder / configs.FILE)]) == 0
    assert [one["standing"] for one in json.loads(capsys.readouterr().out)] == ["expired", "refused", "silent"]
    monkeypatch.setattr(time, "time", lambda: NOW + 2 * DAY_S + 1)
    assert city_program.main(["nodes", "--json", "--config", str(site.folder / configs.FILE)]) == 0
    assert {one["standing"] for one in json.loads(capsys.readouterr().out)} == {"silent"}


def test_a_certificate_that_ends_soon_is_marked_with_what_to_do(site, office, capsys, monkeypatch):
    with site.serving() as server:
        server.grants(server.evidence())
    with ledger(site) as found:
        until_s = found.nodes()[0].until_s

    def listed(now_s, *more):
        monkeypatch.setattr(time, "time", lambda: now_s)
        assert city_program.main(["nodes", "--config", str(site.folder / configs.FILE), *more]) == 0
        return capsys.readouterr().out

    for left_s, days, ends, says in ((31 * DAY_S, 31, False, ""), (30 * DAY_S, 30, True, "30 day(s) left"),
                                     (1, 0, True, "0 day(s) left"), (-1, -1, True, "OVER")):
        shown, = json.loads(listed(until_s - left_s, "--json"))
        assert shown["until"] == agreement_text.moment(until_s)
        assert (shown["days_left"], shown["certificate_ends"]) == (days, ends)
        line = listed(until_s - left_s)
        assert "certificate until " + shown["until"] in line and says in line
        assert ("edged-city ca enrol --again" in line) == ends
    site.seen(office.emulated.attest)  # nobody's device any more
    assert "enrol" not in listed(until_s - 1) and not json.loads(listed(until_s - 1, "--json"))[0]["certificate_ends"]


# ------------------------------------------------------------------------------------------------------------- audit


@pytest.fixture
def audited(site, office):
    """After three grants and a refusal."""
    with site.serving() as server:
        for _ in range(3):
            server.grants(server.evidence())
        nonce = server.challenge(office.device)
        server.refused(server.evidence(nonce=nonce, claims=changed(office.device.claims(nonce), dbgstat=0)))
    return site


def audit(capsys, site, *more):
    """(exit code, entries, head, standard error)"""
    code = city_program.main(["audit", "--config", str(site.folder / configs.FILE), *more])
    said = capsys.readouterr()
    lines = said.out.splitlines()
    head = lines.pop()[len("# head "):] if lines and lines[-1].startswith("# head ") else None
    return code, [json.loads(line) for line in lines], head, said.err


def tampered(site, statement, *values):
    base = sqlite3.connect(str(site.folder / "ledger.db"))
    base.executescript("DROP TRIGGER audit_stays; DROP TRIGGER audit_is_kept;")
    base.execute(statement, values)
    base.commit()
    base.close()


def test_the_audit_log_tells_who_got_what(audited, capsys, office):
    code, entries, head, _ = audit(capsys, audited)
    assert code == 0 and [one["event"] for one in entries] == ["started", "granted", "granted", "granted", "refused"]
    assert entries[1]["ueid"] == office.device.ueid.hex() and entries[1]["slot 2"] == NOW
    assert entries[1]["agreement"] == audited.terms.digest.hex() and "debugging" in entries[4]["reason"]
    assert audit(capsys, audited, "--head", head)[0] == 0


def test_a_log_that_went_on_still_has_its_older_head(audited, capsys):
    head = audit(capsys, audited)[2]
    with audited.serving() as server:
        server.grants(server.evidence())
    assert audit(capsys, audited, "--head", head)[0] == 0


def test_the_log_itself_refuses_to_be_changed(audited):
    base = sqlite3.connect(str(audited.folder / "ledger.db"))
    for statement in ("UPDATE audit SET entry = x''", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="the audit log only grows"):
            base.execute(statement)
    base.close()


@pytest.mark.parametrize("statement", [
    "UPDATE audit SET entry = substr(entry, 1, 10) || x'00' || substr(entry, 12) WHERE n = 3",
    "UPDATE audit SET digest = zeroblob(32) WHERE n = 3", "DELETE FROM audit WHERE n = 3",
    "UPDATE audit SET n = 99 WHERE n = 3", "DELETE FROM audit WHERE n = 1"])
def test_an_entry_that_was_altered_is_noticed(audited, capsys, statement):
    tampered(audited, statement)
    code, entries, head, err = audit(capsys, audited)
    assert code == 76 and "was altered" in err and err.count("\n") == 1 and head is None and len(entries) <= 2


def test_grants_that_were_taken_off_the_logs_end_are_noticed(audited, capsys):
    tampered(audited, "DELETE FROM audit WHERE n > 3")
    code, _, _, err = audit(capsys, audited)
    assert code == 76 and "entries were taken off its end" in err


def test_whatever_was_taken_off_or_written_anew_is_noticed_by_who_kept_a_head(audited, capsys):
    head = audit(capsys, audited)[2]
    tampered(audited, "DELETE FROM audit WHERE n > 4")
    assert audit(capsys, audited)[0] == 0  # the refusal is gone, and nothing else knows of it
    with ledger(audited) as found:
        with found.changing():
            found.append(NOW, "refused", b"\1" * 17, {"reason": "another"})
    code, _, _, err = audit(capsys, audited, "--head", head)
    assert code == 76 and "is not of this audit log" in err


@pytest.mark.parametrize("head", ["5", "x:00", "5:00"])
def test_a_head_that_is_none_is_a_usage_error(audited, capsys, head):
    code, _, _, err = audit(capsys, audited, "--head", head)
    assert code == 2 and "--head" in err


def test_no_secret_is_in_ledger_log_or_repr(site, city, ring, office, caplog):
    caplog.set_level(logging.DEBUG)
    with site.serving() as server:
        server.grants(server.evidence())
    secrets = [path.read_bytes() for path in city.glob("*.key")]
    content = b"".join(path.read_bytes() for path in site.folder.glob("ledger.db*"))
    said = caplog.text + repr(of_city(str(city))) + repr(of_owner(ring))
    for secret in secrets + [ring.seed, ring.model_key()[1]]:
        assert secret not in content and secret.hex() not in said and repr(secret)[2:-1] not in said
