"""A node for the bridge's tests: the real enclave, a real configuration, and a camera that is a few lines.

``BridgeNode`` runs the daemon in a thread; ``Killed``, raised anywhere in it, ends it as a kill would: what it held is
gone, its connections close. ``Saying`` speaks the camera's part of the protocol and knows the camera's key.
"""

import os
import tempfile
import threading
import time
from contextlib import closing

import numpy as np

from attacks.networks import random_coordinates, small
from edged import config
from edged.alerts.spool import Caps, Spool
from edged.bus import Dealer
from edged.camera.clip import Clip, camera_key, seal_clip, session_key
from edged.emulated import ALERT_SLOT, DATA_SLOT, MODEL_SLOT, EmulatedNode
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.key import KeyClient
from edged.enclave.wire import RecordKind
from edged.offload import daemon, messages
from edged.trust.agreement import sign

MODEL = small()
PATIENCE_S = 30.0  # until a test is given up; nothing here takes long
AGAIN_S = 0.1  # a camera that hears nothing sends again
CAPS = Caps(1 << 20, 1 << 30, 1 << 30)

CONFIG = """\
schema = 1
[node]
name = "n1"
state = "state"
run = "run"
[enclave]
kind = "host"
at = "{at}"
keys = "slots"
package = "model.pkg"
agreements = [{agreements}]
placement = "{placement}"
transport = "{transport}"
[accelerator]
kind = "{accelerator}"
threads = 1
[outbox]
key = "curve.key"
max_rows = {max_rows}
[[subscriber]]
name = "city"
address = "tcp://127.0.0.1:5555"
server_key = "rq:rM>}}U?@Lns47E1%kR.o@n%FcmmsL/@{{H8]yf7"
recipient = "00112233445566778899aabbccddeeff"
"""
CAMERA = """\
[camera.{0}]
source = "generator:7"
key = "{0}.key"
"""


class Killed(BaseException):
    """The process is no more: nobody catches this."""


def until(condition, what="it never came true"):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


class BridgeNode(EmulatedNode):
    """The enclave with its keys, and files for a bridge. ``with`` starts the enclave alone, ``bridge`` a bridge."""

    def __init__(self, cameras=("gate",), alert_key_bytes=(32,), rules=(), placement="masked", transport="window",
                 accelerator="numpy", max_rows=1000000, **terms):
        self._folder = tempfile.TemporaryDirectory(prefix="edged-")
        self.folder = self._folder.name
        super().__init__(os.path.join(self.folder, "enclave"), (), alert_key_bytes, rules, **terms)
        self.cameras = tuple(cameras)
        self.papers = [(self.agreement, sign(self.agreement.encode(), self.mo_key, self.qdo_key))]
        self._fields = dict(at=self.enclave.folder, placement=placement, transport=transport, accelerator=accelerator,
                            max_rows=max_rows)
        self._model_package = self.package(MODEL)
        self._thread = None

    def __enter__(self):
        os.makedirs(self.enclave.folder, exist_ok=True)
        self.enclave.start()
        self.put_keys()
        return self

    def __exit__(self, *_):
        self.stop()
        self.enclave.stop()
        self._folder.cleanup()

    def put_keys(self):
        with closing(KeyClient(self.enclave.connect_key())) as key:
            key.put_slot(MODEL_SLOT, wire.KeyKind.MODEL, self.model_key, self.model_key_id, self.agreement.mo)
            key.put_slot(DATA_SLOT, wire.KeyKind.DATA, self.data_key, self.data_key_id, self.agreement.qdo)
            for slot, (alert, to) in enumerate(zip(self.alert_keys, self.agreement.recipients), ALERT_SLOT):
                key.put_slot(slot, wire.KeyKind.ALERT, alert, to.alert_key, self.agreement.qdo)

    def restart_eval(self):
        """kill -9 of the evaluation application, then a new one."""
        self.enclave.restart_eval()

    def config(self):
        """The configuration, read from files that are written first."""
        names = []
        for index, (_, signed) in enumerate(self.papers):
            names.append('"{}.agreement"'.format(index))
            self.write("{}.agreement".format(index), signed)
        self.write("model.pkg", self._model_package)
        text = CONFIG.format(agreements=", ".join(names), **self._fields)
        # Where there are several the camera process has to know; these here say what they like.
        agreement = "agreement = {}\n".format(names[0]) if len(names) > 1 else ""
        text += "".join(CAMERA.format(name) + agreement for name in self.cameras)
        self.write("edged.toml", text.encode())
        return config.load(os.path.join(self.folder, "edged.toml"), {})

    def write(self, name, data):
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(data)

    # The bridge.

    def bridge(self, wait=True):
        """Start a bridge in a thread, and wait until it serves."""
        assert self._thread is None
        self._stop, self.died = threading.Event(), None
        self._thread = threading.Thread(target=self._run, args=(self.config(), self._stop), daemon=True)
        self._thread.start()
        if wait:
            until(lambda: self.died is not None or self.status()["enclave"] == "up", "the bridge does not come up")
        return self

    def _run(self, loaded, stop):
        try:
            daemon.run(loaded, stop)
        except BaseException as error:  # of its thread
            self.died = error

    def stop(self):
        """Ask the bridge to stop, and wait for it; whatever it died of is raised, but a Killed."""
        if self._thread is not None:
            self._stop.set()
            self.join()
            if self.died is not None and not isinstance(self.died, Killed):
                raise self.died

    def join(self):
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the bridge hangs"
        self._thread = None

    @property
    def is_dead(self):
        return self._thread is None or not self._thread.is_alive()

    def status(self):
        return self.ask("status")[1]

    def ask(self, kind, **body):
        with Dealer(self.address, messages.edgectl_identity()) as dealer:
            until(lambda: self.is_dead or dealer.send(messages.pack(kind, body)), "the bridge takes no question")
            message = dealer.receive(0 if self.is_dead else PATIENCE_S)
            return messages.to_edgectl(kind, message.frames) if message else ("dead", {"enclave": "dead"})

    @property
    def address(self):
        return "ipc://{}/run/bridge.sock".format(self.folder)

    # What is in the spool.

    def stored(self, recipient=0):
        """All records of a recipient, opened, in order of arrival."""
        with Spool(os.path.join(self.folder, "state", "spool.db"), CAPS) as spool:
            rows = spool.pending(self.agreement.recipients[recipient].rcpt, 0, 1 << 20)
        return [self.open(sealed, recipient) for _, sealed in rows]

    def checked(self, recipient=0):
        """Likewise; every epoch must begin with its record, and no number be missing or there twice."""
        records = self.stored(recipient)
        epochs = {}
        for record in records:
            epochs.setdefault(record.header.epoch, []).append(record)
        for found in epochs.values():
            assert [one.header.seq for one in found] == list(range(1, len(found) + 1))
            assert [one.kind for one in found].count(RecordKind.EPOCH) == 1 and found[0].kind == RecordKind.EPOCH
        return records

    def clips(self, recipient=0):
        """[(camera, claimed time, kind)] of all clips' records."""
        return [(record.camera.rstrip(b"\0").decode(), record.claimed_ns, record.kind)
                for record in self.checked(recipient) if hasattr(record, "claimed_ns")]

    def eval_client(self):
        """A client of the evaluation application, which serves one at a time."""
        return EvalClient(self.enclave.connect_eval())


class Refused(Exception):
    pass


class Saying:
    """A camera. ``deliver`` speaks as one should; ``say`` says anything."""

    def __init__(self, node, name="gate", data_key=None, agreement=None):
        self.node, self.name, self.agreement = node, name, agreement or node.agreement.digest
        self.key = camera_key(data_key or node.data_key, messages.camera_id(name))
        self.dealer = Dealer(node.address, name.encode())
        self.session, self.session_key, self.number, self.heard = None, None, 0, []
        self.claimed = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.dealer.close()

    def say(self, kind, blob=None, **fields):
        until(lambda: self.dealer.send(messages.pack(kind, fields, blob)), "the bridge takes nothing")

    def hear(self, *kinds, patience_s=PATIENCE_S):
        """(kind, fields) of the next message, of these kinds where some are named; None after the patience."""
        deadline = time.monotonic() + patience_s
        while True:
            message = self.dealer.receive(max(0.0, deadline - time.monotonic()))
            if message is None:
                return None
            kind, fields, _ = messages.unpack(message.frames)
            self.heard.append((kind, fields))
            if kind == "here":
                self.say("here")
            elif not kinds or kind in kinds:
                return kind, fields

    def hello(self):
        """Until the session is open."""
        nonce = os.urandom(32)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, "no session: {}".format(self.heard[-3:])
            self.say("hello", camera=messages.camera_id(self.name), nonce=nonce, agreement=self.agreement)
            answer = self.hear("session", "wait", patience_s=AGAIN_S)
            if answer is None or answer[0] == "wait":
                time.sleep(0.02)
                continue
            self.session = answer[1]["session"]
            self.session_key = session_key(self.key, nonce, answer[1]["nonce"])
            return answer[1]

    def sealed(self, coordinates=None, claimed=None):
        """(number, sealed) of a next clip."""
        self.number += 1
        self.claimed += 1
        if coordinates is None:
            coordinates = random_coordinates(np.random.default_rng(self.claimed), MODEL.shape, 1)
        clip = Clip(coordinates, tuple(range(1, len(coordinates) + 1)), claimed or self.claimed,
                    messages.camera_id(self.name))
        return self.number, seal_clip(self.session_key, self.session, self.number, clip)

    def offer(self, number, sealed, session=None):
        self.say("clip", sealed, session=self.session if session is None else session, number=number, captured_ns=1)

    def deliver(self, coordinates=None):
        """One new clip, sent until it is done; whether it failed. Raises Refused."""
        self.claimed += 1
        claimed, number = self.claimed, None
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, "the clip is never done: {}".format(self.heard[-5:])
            if self.session is None:
                self.hello()
                number = None
            if number is None:
                number, sealed = self.sealed(coordinates, claimed)
                self.claimed = claimed
            self.offer(number, sealed)
            answer = self.hear("done", "refused", "reopen", patience_s=AGAIN_S)
            if answer is None:
                continue
            kind, fields = answer
            if kind == "reopen" or kind == "refused" and fields["number"] == number and fields["reopen"]:
                self.session = None
            elif fields["number"] != number:
                continue
            elif kind == "done":
                return fields["failed"]
            elif not fields["retry"]:
                raise Refused(fields["reason"])
            else:
                time.sleep(0.02)
