"""A bridge with an enclave behind it, as a camera sees them, and the line that leads there.

It opens every seal with its own derivation of the key, and refuses what the real one could not take.
"""

from collections import deque

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edged.beside import Paired
from edged.bus import Message
from edged.camera.clip import session_key
from edged.enclave import wire
from edged.offload import messages

KEY = bytes(range(32))
AGREEMENT = b"a" * 32
CAMERA = messages.camera_id("gate")
PATIENCE_S = 20.0  # before a test gives up


class Keys:
    """A camera's keys and their agreements, on a disk that a test changes. found : what is there, or why it is not"""

    def __init__(self, agreement=AGREEMENT, key=KEY):
        self.found = Paired(agreement, key)
        self.asked = []  # digests of agreements, None where the camera had none

    def read(self, had=None):
        self.asked.append(had)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def under(self, digest):
        return self.read(digest).key


class FakeBridge:
    """The bridge and the enclave behind it. ``answer`` decides on each clip; see the functions below."""

    def __init__(self, frames=300, persons=2, joints=18):
        self.shape = (persons, frames, joints)
        self.answer = done
        self.grants = True
        self.agreement = AGREEMENT  # that a hello has to name
        self.key = KEY  # the camera's under it
        self.nonces = []  # of hellos
        self.sessions = 0
        self.session = None
        self.opened = []  # (session, number, ClipHead) of every clip sent, in order
        self.sealed = {}  # (session, number) -> the bytes
        self.finished = []  # claimed times of clips answered with done
        self.statuses = []
        self.there = 0  # times that the camera said so

    def restart(self):
        """Forget everything, as a new process would."""
        self.session = None

    def handle(self, frames):
        """The answers to one message of the camera."""
        request = messages.from_camera("gate", frames)
        if isinstance(request, messages.Hello):
            return self._hello(request)
        if isinstance(request, messages.CameraStatus):
            self.statuses.append(request)
            return []
        if isinstance(request, messages.Here):
            self.there += 1
            return []
        if self.session is None or request.session != self.sessions:
            return [messages.pack("refused", {"number": request.number, "reason": "no such session", "reopen": True,
                                              "retry": False})]
        self._open(request)
        answers = self.answer(self, request)
        self.finished += [self._head(request).claimed_ns for answer in answers if answer[0] == b"done"]
        return answers

    def _hello(self, hello):
        assert hello.agreement == self.agreement
        self.nonces.append(hello.nonce)
        if not self.grants:
            return [messages.pack("wait", {"reason": "the enclave is away"})]
        self.sessions += 1
        mine = bytes([self.sessions] * 32)
        self.session = session_key(self.key, hello.nonce, mine)
        persons, frames, joints = self.shape
        return [messages.pack("session", {"session": self.sessions, "nonce": mine, "epoch": bytes(16),
                                          "persons": persons, "frames": frames, "joints": joints})]

    def _open(self, offer):
        known = self.sealed.setdefault((offer.session, offer.number), offer.sealed)
        assert known == offer.sealed, "one number of one session sealed two different clips"
        head = self._head(offer)
        assert head.claimed_ns == offer.captured_ns and head.camera == CAMERA
        self.opened.append((offer.session, offer.number, head))

    def _head(self, offer):
        data = b"edged clip v1" + offer.session.to_bytes(4, "little") + offer.number.to_bytes(8, "little")
        plain = AESGCM(self.session).decrypt(offer.number.to_bytes(8, "little") + bytes(4), offer.sealed, data)
        return wire.ClipHead.unpack(plain[:wire.ClipHead.size()])


def done(_, offer):
    return [messages.pack("done", {"number": offer.number, "failed": False})]


def failed(_, offer):
    return [messages.pack("done", {"number": offer.number, "failed": True})]


def silence(_, offer):
    return []


def busy(_, offer):
    return [messages.pack("refused", {"number": offer.number, "reason": "busy", "reopen": False, "retry": True})]


def never(_, offer):
    return [messages.pack("refused", {"number": offer.number, "reason": "seal", "reopen": False, "retry": False})]


class Line:
    """A Dealer on a line that a test cuts and delays; the bridge at its other end answers at once."""

    def __init__(self, bridge):
        self.bridge = bridge
        self.cut = self.deaf = False  # nothing gets through; no answer does
        self.answers = deque()

    def send(self, frames):
        if self.cut:
            return False
        answers = self.bridge.handle(frames)
        self.answers.extend([] if self.deaf else answers)
        return True

    def receive(self, timeout_s):
        return Message(b"", self.answers.popleft(), None) if self.answers else None


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def logged(caplog, name):
    """The fields of each event of that name."""
    lines = [record.args[0] for record in caplog.records if record.args and hasattr(record.args[0], "event")]
    return [line.fields for line in lines if line.event.name == name]
