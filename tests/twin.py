"""The delivery chain's two ends for tests: a city with its folder, and a twin of the enclave that seals its records.

The twin counts and seals as trusty_ta does; unlike it, it does whatever a test asks for.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edged import city as city_program
from edged.alerts import adopt, cityconfig, delivery, keyfiles, keys, nodes
from edged.alerts.journal import Journal
from edged.alerts.record import RecordHeader, record_key
from edged.alerts.spool import Caps
from edged.alerts.subscriber import Subscriber
from edged.bus import Dealer, Router, generate_keys
from edged.enclave import wire
from edged.enclave.wire import MessageStatus, MessageType, RecordKind
from edged.trust.agreement import ModelTerms, Rule, open_agreement

MODEL = ModelTerms("stgcn", 0, b"m" * 16)
RULES = (Rule("falling", 50000, 60), Rule("jumping", 50000, 60))
BODY = 512
ROOMY = Caps(10 ** 6, 1 << 30, 10 ** 6)
CITY, EPOCH = b"c" * 16, b"e" * 16
CITY_NS = 1800000000 * 10 ** 9


class City:
    """A city's folder, its agreement and the bundle of one node."""

    def __init__(self, folder, recipients=("city",), period_s=1, bundle=True, **terms):
        self.folder = Path(folder)
        self.mo_key = Ed25519PrivateKey.generate()
        keys.make_keys(str(self.folder), recipients)
        self.public = keys.read_public(str(self.folder))
        self.signed = self.agree(beacon_period_s=period_s, **terms)
        self.agreement = open_agreement(self.signed)
        self.bundle = self.folder.parent / (self.folder.name + "-bundle")
        if bundle:
            self.init()

    def agree(self, **terms):
        values = dict(model=MODEL, rules=RULES, body=BODY, from_s=0, until_s=(1 << 32) - 1, placements=1)
        return keys.demo_agreement(str(self.folder), self.mo_key, **dict(values, **terms))

    def init(self, address="tcp://127.0.0.1:7443", cameras=("gate",), **more):
        more.setdefault("recipient", self.public.recipients[0].name)
        keys.init(str(self.folder), self.signed, "tcp://127.0.0.1:0", address, cameras, str(self.bundle), **more)

    @property
    def config(self):
        return cityconfig.load(str(self.folder / cityconfig.FILE))

    @property
    def nodes_file(self):
        return str(self.folder / nodes.FILE)

    def allow(self, name, node=None):
        """List a new node; its CURVE keys."""
        made = generate_keys()
        nodes.allow(self.nodes_file, name, made.public.decode(), node)
        return made

    def enclave(self, recipient=0, **more):
        one = self.public.recipients[recipient]
        return Enclave(*self.under(self.agreement, recipient), rcpt=one.rcpt, **more)

    def under(self, agreement, recipient=0):
        """(alert key, its id, digest) of an agreement, for one of its recipients."""
        rcpt = self.public.recipients[recipient].rcpt
        key_id = next(one.alert_key for one in agreement.recipients if one.rcpt == rcpt)
        return keyfiles.read_all(str(self.folder))[key_id].read(), key_id, agreement.digest

    def renew(self, **terms):
        """New keys, and the agreement that names them, signed: it follows, where nobody has adopted it yet."""
        keys.renew(str(self.folder))
        signed = self.agree(**dict(dict(number=self.agreement.number + 1,
                                        beacon_period_s=self.agreement.beacon_period_s), **terms))
        return signed, open_agreement(signed)

    def adopt(self, signed):
        adopt.adopt(str(self.folder), signed)

    @contextmanager
    def hearing(self, curve):
        """Its subscriber, and the end of a connection to it that has this key."""
        with Subscriber(self.config) as subscriber:
            peer = Peer(subscriber, curve, self.public.curve)
            try:
                yield subscriber, peer
            finally:
                peer.close()


class Enclave:
    """Towards one recipient. ``begin`` an epoch first."""

    def __init__(self, alert_key, kid, digest, rcpt, node=None, rules=len(RULES), body=BODY):
        self.alert_key, self.rcpt, self.kid, self.digest, self.rules = alert_key, rcpt, kid, digest, rules
        self.body = body
        self.node = node or os.urandom(16)
        self.epoch, self.salt, self.seq, self.counter = bytes(16), bytes(32), 0, 0
        self.number = self.event = 0

    def begin(self, unclean=False, counter=None, previous=None, previous_seq=None):
        """A new epoch; its first record."""
        self.before = dict(unclean=int(unclean), counter=self.counter + 1 if counter is None else counter,
                    previous=self.epoch if previous is None else previous,
                    previous_seq=self.seq if previous_seq is None else previous_seq)
        self.counter = self.before["counter"]
        self.epoch, self.salt, self.seq = os.urandom(16), os.urandom(32), 0
        return self.begin_agreement()

    def pass_by(self, remembered=True):
        """An epoch in which this recipient is in no agreement. remembered : the next one that has records for him
        names the last that had, as the enclave does it; else the one right before, as if his there had ended at 0"""
        self.counter += 1
        if not remembered:
            self.epoch, self.seq = os.urandom(16), 0

    def begin_agreement(self):
        """The epoch record of the agreement whose digest is set now."""
        return self.seal(RecordKind.EPOCH, wire.EpochBody(
            version=2, kind=RecordKind.EPOCH, agreement=self.digest, **self.before).pack())

    def use(self, alert_key, kid, digest):
        """Seal under another agreement from now on, in the same sequence."""
        self.alert_key, self.kid, self.digest = alert_key, kid, digest

    def succession(self, agreement, next_key=None):
        """The last record under the agreement in use: this one follows. next_key : other than it names"""
        if next_key is None:
            next_key = next(one.alert_key for one in agreement.recipients if one.rcpt == self.rcpt)
        return self.seal(RecordKind.SUCCESSION, wire.SuccessionBody(
            version=2, kind=RecordKind.SUCCESSION, number=agreement.number, next_key=next_key,
            successor=agreement.digest).pack())

    def clip(self, alert=None, status=MessageStatus.ACTUAL, score=63570, claimed_ns=CITY_NS, time_ns=CITY_NS,
             camera=b"gate", message=MessageType.ALERT, tracks=(3,), skeletons=b""):
        """A clip's record; alert : index of the rule that holds, or no longer does; an ALERT begins its event.
        skeletons : their head and coordinates"""
        self.number += 1
        self.event = self.number if message == MessageType.ALERT else self.event
        entries = [wire.AlertEntry(message, score, self.event) if rule == alert else wire.AlertEntry(0, 0, 0)
                   for rule in range(self.rules)]
        kind = RecordKind.OBSERVATION if alert is None else RecordKind.ALERT
        scores = wire.Scores(version=2, kind=kind, status=status, sees=0, labels=3, rules=self.rules,
                             persons=len(tracks), number=self.number, claimed_ns=claimed_ns, time_ns=time_ns,
                             tracks=tracks + (0,) * (8 - len(tracks)), camera=camera.ljust(32, b"\0"), model=b"M" * 32)
        return self.seal(RecordKind.OBSERVATION,
                         scores.pack() + b"".join(entry.pack() for entry in entries) + skeletons)

    def heartbeat(self, beacon, counter=None):
        """The answer to a beacon."""
        asked = wire.Beacon.unpack(beacon)
        head = wire.HeartbeatHead(version=2, kind=RecordKind.HEARTBEAT, cameras=0, nonce=asked.nonce,
                                  time_ns=asked.time_ns, uptime_ns=1, seq=self.seq + 1,
                                  counter=self.counter if counter is None else counter, config=bytes(32))
        return self.seal(RecordKind.HEARTBEAT, head.pack())

    def claim(self, data, kind=RecordKind.CAMERA):
        head = wire.ClaimHead(version=2, kind=kind, bytes=len(data))
        return self.seal(kind, head.pack() + data)

    def seal(self, kind, plain, seq=None):
        if seq is None:
            self.seq += 1
            seq = self.seq
        header = RecordHeader(1, self.kid, seq, int(kind), self.node, self.rcpt, self.salt, self.epoch)
        packed = header.pack()
        plain = plain.ljust(wire.EDGED_RECORD_HEADER_MAX + self.body - len(packed), b"\0")
        body = AESGCM(record_key(self.alert_key, header, self.digest)).encrypt(
            seq.to_bytes(8, "little") + bytes(4), plain, packed)
        return wire.RecordHead(len(packed), len(body)).pack() + packed + body


def outer_record(seq, rcpt=CITY, epoch=EPOCH, kind=0, content=b"", kid=bytes(16)):
    """As the node sees a record: a readable header, and something sealed."""
    header = RecordHeader(1, kid, seq, kind, bytes(16), rcpt, bytes(32), epoch).pack()
    body = content.ljust(400, b"#")
    return wire.RecordHead(len(header), len(body)).pack() + header + body


def damaged(sealed, at=-20):
    """With one bit of the ciphertext flipped."""
    changed = bytearray(sealed)
    changed[at] ^= 1
    return bytes(changed)


def admits_nobody():
    """A guarded socket to be held while subscribers come and go beside Dealers: with the last one ZeroMQ's handler of
    admissions ends, and another cannot begin at once in the same context."""
    return Router("tcp://127.0.0.1:0", generate_keys().secret, lambda _: False)


class Peer:
    """A node's end of a connection, in a test's hands."""

    def __init__(self, subscriber, curve, server):
        self.subscriber = subscriber
        self.dealer = Dealer(subscriber.address, b"o" + os.urandom(15), (curve, server.encode()))
        self.run, self.number = os.urandom(delivery.RUN_BYTES), 0
        self.beacons, self.acked, self.refused, self.welcomes, self.agains = [], [], [], [], []

    def send(self, *frames):
        """Once connected; meanwhile the subscriber runs. Its events."""
        events = []
        deadline = time.monotonic() + 10
        while not self.dealer.send(list(frames)):
            assert time.monotonic() < deadline, "not connected"
            events += self.subscriber.poll(0.01)
        return events

    def hello(self):
        return self.send(*delivery.pack_hello(self.run))

    def offer(self, sealed):
        """A record, as the next one of the run."""
        self.number += 1
        return self.send(*delivery.pack_record(self.run, self.number, sealed))

    def deliver(self, *records, until=None):
        """Send records, and run the subscriber until it has answered each, or ``until`` holds. The events."""
        events = []
        answered = len(self.acked) + len(self.refused) + len(records)
        for sealed in records:
            events += self.offer(sealed)
        deadline = time.monotonic() + 10
        while not (until(events) if until else len(self.acked) + len(self.refused) >= answered):
            assert time.monotonic() < deadline, "no answer: {}".format(events)
            new = self.subscriber.poll(0.02)
            events += new
            # Another poll would say that the consumer took what this one returned.
            self.take(0.2 if new and not until else 0.005, answered)
        return events

    def beacon(self):
        """The next beacon, and the events meanwhile."""
        events = []
        deadline = time.monotonic() + 10
        while not self.beacons:
            assert time.monotonic() < deadline, "no beacon"
            events += self.subscriber.poll(0.02)
            self.take()
        return self.beacons.pop(), events

    def take(self, timeout_s=0.005, answered=0):
        """What came; waits for it until so many records were answered, in all."""
        deadline = time.monotonic() + timeout_s
        message = self.dealer.receive(0.005)
        while message is not None or len(self.acked) + len(self.refused) < answered and time.monotonic() < deadline:
            if message is None:
                message = self.dealer.receive(0.005)
                continue
            said = delivery.unpack_answer(message.frames)
            if said.kind == delivery.ACK:
                self.acked += said.names
            elif said.kind == delivery.REFUSED:
                self.refused += said.names
            elif said.kind == delivery.BEACON:
                self.beacons.append(said.data)
            elif said.kind == delivery.AGAIN:
                self.agains.append(said.data)
            else:
                self.welcomes.append(said.data)
            message = self.dealer.receive(0)

    def close(self):
        self.dealer.close()


def run(capsys, *arguments, program=city_program):
    """(exit code, standard output, standard error)"""
    code = program.main([str(one) for one in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


class Listening:
    """`edged-city listen` of a city's folder as a process; the address that it said."""

    def __init__(self, folder, *more):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "edged.city", "listen", "--config",
             str(folder / cityconfig.FILE)] + list(more),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        said = self.process.stderr.readline()
        assert said.startswith("edged-city: listening on tcp://127.0.0.1:"), said
        self.address = said.split()[-1]

    def poll(self, _):
        """For Peer: it runs by itself."""
        return []

    def end(self, number=signal.SIGTERM):
        """(exit code, lines of standard output, standard error)"""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out.splitlines(), err


class Clock:
    """time.monotonic and time.time_ns that can be put forward."""

    def __init__(self):
        self.ahead_s = 0.0
        self.wall_ahead_s = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead_s

    def time_ns(self):
        return time.time_ns() + int((self.ahead_s + self.wall_ahead_s) * 1e9)


def plain(events, *kinds):
    """Those of these types."""
    return [event for event in events if isinstance(event, kinds)]


def cbor_claim(**fields):
    return cbor2.dumps(fields)


def without_others(journal):
    """A journal's table of nodes as before schema 4."""
    journal._base.execute("ALTER TABLE node RENAME TO newer")
    table = next(table for table in Journal.schema.split(";\n\n") if "TABLE node" in table)
    journal._base.execute(table.replace(",\n            others BLOB NOT NULL", ""))
    journal._base.execute("INSERT INTO node SELECT name, node, salt, epoch, digests, beacon_ns FROM newer")
    journal._base.execute("DROP TABLE newer")
