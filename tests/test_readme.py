"""The README names only what exists, its table is one that the benchmark printed, its way to an agreement is one."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edged import city, edgectl, owner
from edged import command as commands
from edged.alerts import keys
from edged.enclave import wire
from edged.model import network, stgcn
from edged.trust import agreement_text, keyring
from edged.trust.agreement import open_agreement

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = {"edged": "edged.cli", "edgectl": "edged.edgectl", "edged-owner": "edged.owner", "edged-city": "edged.city"}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_leads_to_a_file(target):
    assert (ROOT / target).is_file()


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"`((?:trusty_ta|edged|scripts|tests)(?:/\w+)*)`", README))))
def test_every_path_is_there(folder):
    assert (ROOT / folder).exists()


# `tests/FILE.py`, or one test of it: `tests/FILE.py::test_...`; `scripts/NAME` with what may follow.
NAMED = re.compile(r"`((?:tests|scripts)/[\w./-]+)(?:::(\w+))?(?: [^`]*)?`")


@pytest.mark.parametrize("path, test", sorted(set(NAMED.findall(README))))
def test_every_test_and_script_that_is_named_is_there(path, test):
    assert (ROOT / path).exists()
    if test:
        assert re.search(r"^def {}\(".format(test), (ROOT / path).read_text(encoding="utf-8"), re.M)


def test_every_measure_of_the_risk_table_has_tests_and_nothing_else_in_their_place():
    rows = re.search(r"^\| measure \|.*\| test \|\n\|[-|]+\n((?:\|.*\|\n)+)", README, re.M).group(1).splitlines()
    assert len(rows) > 5
    for row in rows:
        named = row.rsplit("|", 2)[1].strip()
        assert ", ".join(found.group() for found in NAMED.finditer(named)) == named, row
        tests = [ROOT / path for path, _ in NAMED.findall(named) if path.endswith(".py")]
        assert tests and all("\ndef test_" in path.read_text(encoding="utf-8") for path in tests), row


@pytest.mark.parametrize("program, command", sorted(set(re.findall(
    r"\b(edged|edgectl|edged-owner|edged-city) ([a-z][a-z-]+)(?= --| FILE|`)", README))))
def test_every_command_is_one_of_the_program(program, command):
    done = subprocess.run([sys.executable, "-m", MODULES[program], command, "--help"], cwd=str(ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^    ((?:edged|edgectl|edged-owner|edged-city) .*)$", README,
                                                        re.M))))
def test_every_command_line_is_one_that_its_program_takes(monkeypatch, line):
    """Options and arguments included; nothing is executed. `FILE ...` is one or more; NUMBER is a number."""
    program, *words = [word for word in shlex.split(line, comments=True) if word != "..."]
    monkeypatch.setattr(commands, "run", lambda parser, arguments: parser.parse_args(arguments))
    importlib.import_module(MODULES[program]).main(["1" if word == "NUMBER" else word for word in words])


@pytest.mark.parametrize("placement", ["masked", "inputs", "enclave"])
def test_the_table_of_the_benchmark_has_a_row_of_figures_for_each_placement(placement):
    rows = re.findall(r"^\| `{}` \|(.*)\|$".format(placement), README, re.M)
    assert rows
    for row in rows:
        assert all(re.search(r"\d", cell) for cell in row.split("|"))


# From nothing to an agreement that both signed: the README's own lines, in its order.
WAY = ("edged-city keys", "edged-owner keys new", "edged-owner pack", "edged-owner agreement draft",
       "edged-owner agreement check", "edged-owner sign", "edged-city sign")
PROGRAMS = {"edged-owner": owner, "edged-city": city, "edgectl": edgectl}


def line_of(begin, later=False):
    """later : of those of an agreement that follows another"""
    found = [line for line in re.findall(r"^    (.*)$", README, re.M)
             if line.startswith(begin + " ") and ("--previous" in line) == later]
    return shlex.split(found[0], comments=True)


class Way:
    """A folder in which the README's placeholders are files; ``run`` executes one of its lines."""

    def __init__(self, folder, capsys):
        self.folder, self._capsys, self.words = folder, capsys, {"ID": "stgcn"}
        (folder / "FILE").write_bytes(b"nobody guesses this one\n")
        (folder / "FILE").chmod(0o600)

    def run(self, begin, *more, code=0, later=False):
        program, *words = line_of(begin, later)
        ended = PROGRAMS[program].main([self.words.get(word, word) for word in words] + list(more))
        said = self._capsys.readouterr()
        assert ended == code, said.err
        return said.err if code else said.out

    def network(self):
        made = stgcn.random_network(5, channels=((4, 1), (6, 2)), frames=30, labels=3, taps=3)
        (self.folder / "NETWORK").write_bytes(network.to_bytes(made))
        with open(str(self.folder / "CLIPS"), "wb") as file:
            np.savez(file, clips=stgcn.random_clip(np.random.default_rng(6), made, 2)[None])


@pytest.fixture
def way(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = Way(tmp_path, capsys)
    made.network()
    for begin in WAY[:3]:
        made.run(begin)
    return made


def settle(way, edit=lambda text: text):
    """The README's lines from a draft to an agreement; the city goes on with it. edit : of the draft, by the owner"""
    way.run(WAY[3])
    draft = way.folder / "DRAFT"
    draft.write_text(edit(draft.read_text()))
    way.words["DIGEST"] = way.run(WAY[4]).split()[-1]
    way.words["MO"] = keyring.inspect("OWNER.ring").verify_key.hex()
    way.words["QDO"] = keys.read_public("CITY").qdo.hex()
    for begin in WAY[5:]:
        assert "compared with nothing" not in way.run(begin), "there is none before it"
    way.words.update({"FILE": "AGREEMENT", "tcp://HOST:7443": "tcp://127.0.0.1:7443"})
    way.run("edged-city init")
    del way.words["FILE"]


def test_the_lines_of_an_agreement_that_follows_show_what_it_widens(way):
    settle(way)
    way.run("edged-city keys renew")
    way.words.update(OLD="AGREEMENT", DRAFT="DRAFT-2", HALF="HALF-2", AGREEMENT="AGREEMENT-2")
    way.run("edged-owner agreement renew")
    draft = way.folder / "DRAFT-2"
    draft.write_text(draft.read_text().replace("threshold = 0.50000", "threshold = 0.25000", 1))
    way.words["DIGEST"] = way.run(WAY[4]).split()[-1]
    for begin in WAY[5:]:
        said = way.run(begin, later=True)
        assert "# agreement 1 -> 2: " in said and "1 of them WIDER" in said and "compared with nothing" not in said
    way.words["FILE"] = "AGREEMENT-2"
    way.run("edged-city adopt")


@pytest.mark.parametrize("begin, option, wrong", [("edged-owner sign", "QDO", "its query data owner is"),
                                                  ("edged-city sign", "MO", "its model owner is")])
@pytest.mark.parametrize("later", [False, True])
def test_each_signs_by_a_line_that_compares_the_others_key(way, begin, option, wrong, later):
    settle(way)
    way.words.update({option: "00" * 32, "OLD": "AGREEMENT"})
    assert wrong in way.run(begin, code=76, later=later)


def test_the_way_from_nothing_to_an_agreement_is_the_readmes(way):
    settle(way, lambda text: text.replace("threshold = 0.50000", "threshold = 0.75000", 1))
    public = keys.read_public("CITY")
    terms = open_agreement((way.folder / "AGREEMENT").read_bytes(), bytes.fromhex(way.words["MO"]), public.qdo)
    assert terms == agreement_text.read("DRAFT", (way.folder / "DRAFT").read_bytes())
    assert [(rule.label, rule.threshold) for rule in terms.rules] == [
        ("label000", 49152), ("label001", 32768), ("label002", 32768)]
    assert (terms.number, terms.status, terms.data_key) == (1, wire.MessageStatus.TEST, public.data_key_id)
    assert [(one.rcpt, one.alert_key) for one in terms.recipients] == [
        (one.rcpt, one.key_id) for one in public.recipients]
    assert (terms.until_s - terms.from_s) == 365 * 86400


def test_a_draft_is_of_the_owners_own_package_and_of_labels_that_an_agreement_can_hold(way, capsys):
    begin = WAY[3]
    assert way.run(begin, "--label", "label001", "--number", "7") and [
        rule.label for rule in agreement_text.read("DRAFT", (way.folder / "DRAFT").read_bytes()).rules] == ["label001"]
    way.run(begin, code=77)  # a draft may have been edited
    (way.folder / "DRAFT").unlink()
    assert way.run(begin, "--skeletons")
    drawn = agreement_text.read("DRAFT", (way.folder / "DRAFT").read_bytes())
    assert drawn.body == wire.EDGED_BODY_SKELETONS
    assert {one.rules for one in drawn.recipients} == {(7, 7, 7)}
    (way.folder / "DRAFT").unlink()
    way.run(begin, "--label", "sleeping", code=2)
    way.run(begin, "--number", str(1 << 32), code=78)
    sealed = bytearray((way.folder / "PACKAGE").read_bytes())
    sealed[100] ^= 1
    (way.folder / "PACKAGE").write_bytes(sealed)
    way.run(begin, code=76)
    assert owner.main(["keys", "new", "other.ring", "--passphrase-file", "FILE"]) == 0
    way.words["OWNER.ring"] = "other.ring"
    way.run(begin, code=76)
    assert not (way.folder / "DRAFT").exists()


@pytest.mark.parametrize("line", ["edged-city ca crl", "edged-city ca init"])
def test_the_lines_of_the_authority_run_as_they_stand(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    way = Way(tmp_path, capsys)
    way.words["NAME"] = "Testville"
    way.run("edged-city ca init")
    if line != "edged-city ca init":
        way.run(line)
    assert sorted(path.name for path in (tmp_path / "CITY" / "ca").iterdir() if path.suffix == ".crl") == [
        "emulated.crl", "hardware.crl"]
