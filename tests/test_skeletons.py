"""Skeletons at the city: what a record tells of them is in a file before the record is acknowledged, and nowhere else;
and their whole way, from a node's camera to that file."""

import json
import os
import struct
from dataclasses import replace

import pytest

from attacks.networks import integer_model
from edged.alerts import cityconfig, skeletons
from edged.alerts.record import Skeletons
from edged.alerts.reports import Received
from edged.alerts.screen import Screen as Printed
from edged.alerts.skeletons import SkeletonFolder, positions
from edged.alerts.subscriber import Subscriber
from edged.enclave import wire
from edged.enclave.wire import MessageType
from edged.errors import SpoolError
from edged.site import Site, Terms, loopback_address
from screen import Screen
from test_chaos import Node, wait_for
from twin import City, Listening, Peer, plain, run

XY = struct.pack("<16h", *range(-8000, 8000, 1000))  # two persons, two frames, two joints
DRAWN = wire.SkeletonHead(2, 2, 2).pack() + XY
AGREED = dict(body=wire.EDGED_BODY_SKELETONS, skeletons=True)


@pytest.fixture
def city(tmp_path):
    return City(tmp_path / "city", **AGREED)


@pytest.fixture
def talk(city):
    """(its subscriber's configuration, the other end of a node's connection, its enclave)"""
    return cityconfig.load(str(city.folder / "subscriber.toml")), city.allow("north"), city.enclave(
        body=wire.EDGED_BODY_SKELETONS)


def alerted(enclave, **more):
    return enclave.clip(alert=0, tracks=(3, 9), **dict(dict(skeletons=DRAWN), **more))


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_coordinate_is_told_exactly():
    values = list(range(-32768, 32768))
    told = positions(Skeletons(1, 1, len(values) // 2, struct.pack("<65536h", *values)))
    assert [round(value * 16384) for value in sum(told[0][0], [])] == values
    assert positions(Skeletons(2, 1, 2, struct.pack("<8h", 16384, 0, 8192, -16384, 1, 2, 3, 4)))[0] == [
        [[1.0, 0.0], [0.5, -1.0]]]


def test_a_record_that_tells_skeletons_is_a_file_before_it_is_acknowledged(city, talk, tmp_path):
    config, curve, enclave = talk
    folder, kept = SkeletonFolder(str(tmp_path / "new" / "drawn")), []

    def keep(event):
        assert (event.record.header.epoch, event.record.header.seq) not in peer.acked
        folder.keep(event)
        kept.append(files(tmp_path / "new" / "drawn"))

    with Subscriber(config, keep) as subscriber:
        peer = Peer(subscriber, curve, city.public.curve)
        begun, quiet, seen = enclave.begin(), enclave.clip(), alerted(enclave)
        events = plain(peer.deliver(begun, quiet, seen), Received)
        peer.close()
    name = "{}-3.json".format(enclave.epoch.hex())
    assert kept == [[], [], [name]] and len(peer.acked) == 3
    assert (tmp_path / "new" / "drawn").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "drawn" / name).stat().st_mode & 0o777 == 0o600
    told = json.loads((tmp_path / "new" / "drawn" / name).read_text())
    assert told.pop("skeletons") == positions(Skeletons(2, 2, 2, XY))
    assert told == {"node": "north", "camera": "gate", "epoch": enclave.epoch.hex(), "seq": 3, "clip": 2,
                    "claimed_time": "2027-01-15T08:00:00.000Z", "status": "Actual", "labels": ["falling"],
                    "tracks": [3, 9], "frames": 2, "joints": 2}
    lines = [json.loads(line) for line in Printed(True, folder=folder).lines(events, 0)]
    assert [line.get("skeletons") for line in lines] == [None, None, {
        "frames": 2, "joints": 2, "file": str(tmp_path / "new" / "drawn" / name)}]
    assert json.loads(Printed(True).lines(events, 0)[2])["skeletons"] == {"frames": 2, "joints": 2}
    assert [skeletons.of(event) for event in events] == [None, None, Skeletons(2, 2, 2, XY)]


def test_where_it_cannot_be_written_nothing_is_acknowledged_and_it_comes_again(city, talk, tmp_path, monkeypatch):
    config, curve, enclave = talk
    folder = SkeletonFolder(str(tmp_path / "drawn"))

    def full(*_):
        raise OSError(28, "No space left on device")

    begun, seen = enclave.begin(), alerted(enclave)
    with monkeypatch.context() as patched:
        patched.setattr(skeletons, "replace_file", full)
        with Subscriber(config, folder.keep) as subscriber:
            peer = Peer(subscriber, curve, city.public.curve)
            with pytest.raises(SpoolError, match="drawn: skeletons cannot be written: .*No space left.*nothing of"):
                peer.deliver(begun, seen)
            assert (enclave.epoch, 2) not in peer.acked and files(tmp_path / "drawn") == []
            peer.close()
    with Subscriber(config, folder.keep) as subscriber:
        assert [event.record.header.seq for event in plain(subscriber.poll(0.1), Received)][-1] == 2
    assert files(tmp_path / "drawn") == ["{}-2.json".format(enclave.epoch.hex())]


def test_what_is_passed_on_again_gives_the_same_file(city, talk, tmp_path):
    config, curve, enclave = talk
    folder = SkeletonFolder(str(tmp_path))
    with Subscriber(config, folder.keep) as subscriber:
        peer = Peer(subscriber, curve, city.public.curve)
        event = plain(peer.deliver(enclave.begin(), alerted(enclave)), Received)[1]
        peer.close()
    before = folder.path(event).read_bytes()
    folder.keep(replace(event, late=True))
    assert folder.path(event).read_bytes() == before


@pytest.mark.parametrize("message, names", [(MessageType.UPDATE, True), (MessageType.CANCEL, False)])
def test_an_update_has_a_file_and_a_cancel_none(city, talk, tmp_path, message, names):
    config, curve, enclave = talk
    folder = SkeletonFolder(str(tmp_path / "drawn"))
    with Subscriber(config, folder.keep) as subscriber:
        peer = Peer(subscriber, curve, city.public.curve)
        peer.deliver(enclave.begin(), alerted(enclave, message=message, skeletons=DRAWN if names else b""))
        peer.close()
    assert len(files(tmp_path / "drawn")) == names


def test_listen_writes_them_and_names_them(city, talk, tmp_path):
    _, curve, enclave = talk
    listening = Listening(city.folder, "--json", "--skeletons", str(tmp_path / "drawn"))
    peer = Peer(listening, curve, city.public.curve)
    peer.deliver(enclave.begin(), alerted(enclave))
    code, lines, err = listening.end()
    peer.close()
    (name,) = [json.loads(line)["skeletons"]["file"] for line in lines if "skeletons" in json.loads(line)]
    assert code == 0 and err == "" and json.loads(open(name).read())["tracks"] == [3, 9]
    assert files(tmp_path / "drawn") == [os.path.basename(name)]


def test_a_folder_that_cannot_be_is_said_before_anything_is_taken(city, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, out, err = run(capsys, "listen", "--config", city.folder / "subscriber.toml", "--skeletons",
                         tmp_path / "file")
    assert code == 69 and out == "" and err.count("\n") == 1
    assert "file: skeletons cannot be written: " in err and "name another folder" in err


def test_a_single_record_is_opened_with_its_skeletons(city, talk, tmp_path, capsys):
    _, _, enclave = talk
    enclave.begin()
    (tmp_path / "record").write_bytes(alerted(enclave))
    (tmp_path / "agreement").write_bytes(city.signed)
    code, out, _ = run(capsys, "open-record", tmp_path / "record", "--dir", city.folder, "--agreement",
                       tmp_path / "agreement")
    assert code == 0 and json.loads(out)["skeletons"] == positions(Skeletons(2, 2, 2, XY))


def test_from_a_nodes_camera_to_the_citys_folder(tmp_path_factory):
    """Every process of a node, and a kill of the bridge in between: 48 KiB through spool, outbox and journal."""
    folder = tmp_path_factory.mktemp("s")
    site = Site(str(folder / "site"), integer_model(5, ((8, 1), (8, 2)), 30, 18), "drawn",
                Terms((("label 0", 1 / 65536, 5),), beacon_period_s=1, skeletons=True),
                {"gate": ['source = "generator:7"', "loop = true"], "yard": ['source = "generator:8"', "loop = true"]},
                loopback_address(), threads=1, log="json")
    kept = SkeletonFolder(str(folder / "drawn"))
    screen, node = Screen(site, kept.keep), Node(site)
    try:
        for more in (3, 6):
            wait_for(lambda: len(drawn_of(screen)) >= more)
            wait_for(lambda: node.find("bridge") is not None)
            os.kill(node.find("bridge"), 9)
        before = len(drawn_of(screen))
        wait_for(lambda: len(drawn_of(screen)) > before + 3)
    finally:
        code = node.stop()
        screen.close()
    assert code == 0
    for event in drawn_of(screen):
        record = event.record
        assert record.skeletons.persons == record.persons and record.skeletons[1:3] == (30, 18)
        told = json.loads(kept.path(event).read_text())
        assert told["skeletons"] == positions(record.skeletons) and told["tracks"] == list(record.tracks)
        assert any(record.skeletons.xy), "people are there"
    assert len(files(folder / "drawn")) == len(drawn_of(screen))


def drawn_of(screen):
    return [event for event in screen.of(Received) if skeletons.of(event) is not None]
