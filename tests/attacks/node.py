"""A node in the attacker's hands: both applications running, and everything around them driven move by move.

``AttackNode`` is root in the normal world plus, so that results can be judged, the keys of both owners.
``Agreed`` is an agreement in force; the default one has one recipient, who sees everything, and no rule.
``Attempt`` is one invocation: what the accelerator is given can be kept, and what it answers be anything.
"""

import itertools
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, Tuple

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.alerts.record import open_record, seal_beacon, split_record
from edged.camera.clip import Clip, camera_key, seal_bytes, session_key
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.client import Emitted, EvalClient, InvocationRefused
from edged.enclave.host import HostEnclave
from edged.enclave.key import KeyClient
from edged.enclave.wire import KeyKind, Placement, RecordKind, Status
from edged.errors import EnclaveError
from edged.model import package, reference
from edged.offload.product import NumpyAccelerator
from edged.offload.transport import MessageTransport, WindowTransport
from edged.trust.agreement import Agreement, ModelTerms, Recipient, sign

MODEL_SLOT, DATA_SLOT, ALERT_SLOT, SHORT_ALERT_SLOT = range(4)
KEY_ID = b"the model's key."
DATA_KEY_ID, ALERT_KEY_ID, SHORT_ALERT_KEY_ID = b"d" * 16, b"a" * 16, b"s" * 16
MODEL_ID = "stgcn"
SEES_ALL = wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SCORE  # of a rule
TRANSPORTS = {kind.name: kind for kind in (WindowTransport, MessageTransport)}
OUTSIDE = (Placement.MASKED, Placement.INPUTS)  # something is computed by the accelerator
RECONNECT_S = 5.0


@contextmanager
def refused(status):
    """The block must end in this status, and no other."""
    with pytest.raises(EnclaveError) as caught:
        yield caught
    assert caught.value.status == status, "{}, not {}".format(caught.value, status.name)


def started_with(model):
    """The fixture ``node`` of a module whose tests take a fresh one each, with this model loaded."""
    @pytest.fixture
    def node(fresh_node):
        fresh_node.load(model, Placement.ENCLAVE)
        return fresh_node

    return node


def confirm_all(node):
    """Whatever the enclave keeps is stored: the state that it seals."""
    return node.client.confirm(node.client.info().emission)


def _patiently(connect):
    deadline = time.monotonic() + RECONNECT_S
    while True:
        client = connect()
        try:
            client.info()
            return client
        except EnclaveError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


class Agreed(NamedTuple):
    """An agreement in force."""

    index: int
    terms: Agreement
    begun: Emitted  # its records `epoch`

    @property
    def salt(self):
        return split_record(self.begun.records[0])[0].salt


_rcpts = itertools.count(1)


def recipient(sees=wire.EDGED_SEES_SCORES, rules=(), alert_key=ALERT_KEY_ID):
    """Somebody new who has the 32-byte alert key."""
    return Recipient(b"recipient %6d" % next(_rcpts), alert_key, sees, tuple(rules))


def short_recipient(sees=wire.EDGED_SEES_SCORES, rules=()):
    """Somebody new who has the 16-byte alert key."""
    return recipient(sees, rules, SHORT_ALERT_KEY_ID)


class Camera(NamedTuple):
    session: int
    key: bytes
    name: bytes


class Prepared(NamedTuple):
    invocation: int
    subtract: Tuple[np.ndarray, ...]  # U + pad per product


class AttackNode:
    """Starts both applications; ``with`` stops them.

    accelerator : computes what the attacker does not falsify; whoever made it closes it
    """

    def __init__(self, accelerator=None):
        self.accelerator = accelerator or NumpyAccelerator()
        self.weights = []  # w_bar, as the accelerator holds them
        self.owner, self.qdo = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        rng = np.random.default_rng()
        self.model_key, self.data_key, self.alert_key = (rng.bytes(32) for _ in range(3))
        self.short_alert_key = rng.bytes(16)
        self.number = 0  # of the last clip sealed
        self.transport = None
        self.terms = Agreement(
            mo=public_bytes(self.owner), qdo=public_bytes(self.qdo), body=wire.EDGED_BODY_MAX, from_s=0,
            model=ModelTerms(MODEL_ID, 0, KEY_ID), rules=(), until_s=(1 << 32) - 1, number=1,
            status=wire.MessageStatus.ACTUAL, beacon_period_s=30, beacon_limit_s=1 << 30, data_key=DATA_KEY_ID,
            placements=package.PLACEMENTS_ALL, recipients=(recipient(),), score_bits=16, clips_per_hour=1000000)

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="edged-")
        self.enclave = HostEnclave(self._folder.name)
        try:
            self.enclave.start()
            self.put_keys()
            self.client = self.connect()
            self.agreed = self.agree()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.enclave.stop()
        self._folder.cleanup()

    # The applications.

    def put_keys(self):
        key = self.connect_key()
        key.put_slot(MODEL_SLOT, KeyKind.MODEL, self.model_key, KEY_ID, self.terms.mo)
        key.put_slot(DATA_SLOT, KeyKind.DATA, self.data_key, DATA_KEY_ID, self.terms.qdo)
        key.put_slot(ALERT_SLOT, KeyKind.ALERT, self.alert_key, ALERT_KEY_ID, self.terms.qdo)
        key.put_slot(SHORT_ALERT_SLOT, KeyKind.ALERT, self.short_alert_key, SHORT_ALERT_KEY_ID, self.terms.qdo)
        key.close()

    def connect(self):
        """A client that is served: the enclave takes one, and may still be burying the one before."""
        return _patiently(lambda: EvalClient(self.enclave.connect_eval()))

    def connect_key(self):
        """Likewise of the key application."""
        return _patiently(lambda: KeyClient(self.enclave.connect_key()))

    def reconnect(self):
        self.client.close()
        self.client = self.connect()

    def kill_eval(self):
        """kill -9 of the evaluation application, then a new one, which knows nothing yet."""
        self.enclave.eval.kill()
        self.client.close()
        self.enclave.restart_eval()
        self.client = self.connect()

    def restart_eval(self, state=None):
        """Likewise; the new one is given this sealed state, and the agreement."""
        self.kill_eval()
        if state is not None:
            self.client.restore(state)
        self.agreed = self.agree()

    def call(self, command, body=b""):
        return self.client.connection.call(command, body)

    def stats(self):
        return self.client.stats()

    # Agreements, and records in general.

    def put(self, terms, mo=None, qdo=None, slots=None):
        """Put an agreement, signed by both parties or by whom the test says, with the slots of its recipients."""
        if slots is None:
            slots = [SHORT_ALERT_SLOT if one.alert_key == SHORT_ALERT_KEY_ID else ALERT_SLOT
                     for one in terms.recipients]
        signed = sign(terms.encode(), mo or self.owner, qdo or self.qdo)
        return self.client.put_agreement(MODEL_SLOT, DATA_SLOT, slots, signed)

    def agree(self, **changes):
        """The agreement of ``terms`` in force; or one with these changes, of recipients that no other has."""
        if changes and "recipients" not in changes:
            changes["recipients"] = (recipient(),)
        terms = replace(self.terms, **changes)
        begun = self.put(terms)
        return Agreed(begun.index, terms, begun)

    def make_room(self):
        """Confirm what is kept, where that is much."""
        info = self.client.info()
        if info.kept > wire.EVAL_KEPT_MAX // 2:
            self.client.confirm(info.emission)

    def kept(self, after=0):
        """[(emission, record)] of what the enclave keeps after this emission."""
        found = []
        while True:
            after, record = self.client.record_from(after + 1)
            if record is None:
                return found
            found.append((after, record))

    def key_of(self, key_id):
        return self.short_alert_key if key_id == SHORT_ALERT_KEY_ID else self.alert_key

    def open(self, record, key=None, agreement=None):
        """Open a record as its recipient, or with any key; agreement : an Agreed, the default one if None."""
        key = key or self.key_of(split_record(record)[0].kid)
        return open_record(record, key, (agreement or self.agreed).terms.digest)

    def beacon(self, time_ns, nonce=b"n" * 16, agreement=None, recipient=0, key=None):
        """A beacon of an agreement's recipient (by its index there) for the present epoch."""
        agreement = agreement or self.agreed
        to = agreement.terms.recipients[recipient]
        return seal_beacon(key or self.key_of(to.alert_key), agreement.salt, to.rcpt, agreement.terms.digest, time_ns,
                           nonce)

    # The model.

    def pack(self, model, model_key=None, key_id=KEY_ID, **fields):
        return package.pack(model, model_key or self.model_key, self.owner, model_id=MODEL_ID, key_id=key_id, **fields)

    def load(self, model, placement=Placement.MASKED, transport="message", **fields):
        """Load, and take the weights over; self.w_bar is what the accelerator holds."""
        window = getattr(self.transport, "_window", None)
        if window is not None:  # of the load before, whose client may be gone
            window.close()
        self.model = model
        self.loaded = self.client.load(self.pack(model, **fields), MODEL_SLOT, placement)
        self.transport = TRANSPORTS[transport](self.client, self.loaded)
        self.products = self.loaded.products
        self.w_bar = [self.transport.weights(index) for index in range(len(self.products))]
        while self.weights:
            self.accelerator.release(self.weights.pop())
        self.weights += [self.accelerator.weights(w_bar) for w_bar in self.w_bar]

    def prepare(self, persons):
        invocation = self.client.open_prepare(persons)
        return Prepared(invocation, tuple(self.transport.prepared(i, persons) for i in range(len(self.products))))

    # Cameras and clips.

    def camera(self, name=b"gate", agreement=None):
        """A session of this camera under an agreement (an Agreed, the default one if None)."""
        name, nonce = name.ljust(32, b"\0"), np.random.default_rng().bytes(32)
        session = self.client.open_session((agreement or self.agreed).index, name, nonce)
        return Camera(session.session, session_key(camera_key(self.data_key, name), nonce, session.nonce), name)

    def clip(self, camera, coordinates):
        """The plaintext of a clip."""
        return Clip(coordinates, tuple(range(1, len(coordinates) + 1)), 5, camera.name).pack()

    def seal(self, camera, coordinates, number=None):
        """(number, sealed): the next clip of this camera."""
        if number is None:
            number = self.number = self.number + 1
        return number, seal_bytes(camera.key, camera.session, number, self.clip(camera, coordinates))

    def attempt(self, camera, clip, prepared=None, make_room=True):
        """Hand a sealed clip, (number, sealed), over."""
        if make_room:
            self.make_room()
        return Attempt(self, camera, clip, prepared)

    def evaluate(self, camera, coordinates, prepared=None, agreement=None):
        """An honest evaluation of a new clip, exact: the observation."""
        attempt = self.attempt(camera, self.seal(camera, coordinates), prepared)
        return attempt.finish_exactly(coordinates, agreement=agreement)

    def abort(self, camera):
        """(status, record or None)"""
        try:
            return Status.OK, self.client.abort_clip(camera.session).record
        except EnclaveError as error:
            return error.status, None

    def expect(self, record, coordinates, key=None, agreement=None):
        """The record must be the observation that the reference defines."""
        observation = self.open(record, key, agreement)
        logits, probabilities = reference.run(self.model, coordinates)
        assert observation.kind == RecordKind.OBSERVATION and observation.persons == len(coordinates)
        assert observation.logits == tuple(logits) and observation.probabilities == tuple(probabilities)
        return observation


class Attempt:
    """One invocation. ``progress`` says where it stands; ``x_bar`` holds what the accelerator saw, by product."""

    def __init__(self, node, camera, clip, prepared=None):
        number, sealed = clip
        self.node, self.prepared, self.x_bar = node, prepared, {}
        empty = wire.sealed_clip_bytes(0, node.loaded.head.frames, node.loaded.head.joints)
        one = wire.sealed_clip_bytes(1, node.loaded.head.frames, node.loaded.head.joints) - empty
        self.persons = (len(sealed) - empty) // one
        self.progress = node.transport.begin(camera.session, number, prepared.invocation if prepared else 0, sealed)

    @property
    def due(self):
        return [i for i, product in enumerate(self.node.products) if product.step == self.progress.step]

    @property
    def done(self):
        return self.progress.record is not None

    def read(self):
        """xbar of the products that are due."""
        for index in self.due:
            self.x_bar[index] = self.node.transport.x_bar(index, self.persons).copy()
        return {index: self.x_bar[index] for index in self.due}

    def compute(self, index, x_bar=None, w_bar=None, subtract=None):
        """ybar as an honest accelerator makes it, of whatever it was given."""
        product = self.node.products[index]
        if subtract is None and self.prepared:
            subtract = self.prepared.subtract[index][:self.persons]
        accelerator = self.node.accelerator
        return accelerator.convolve(self.node.weights[index] if w_bar is None else accelerator.weights(w_bar),
                                    self.x_bar[index] if x_bar is None else x_bar, product.stride, product.pad,
                                    subtract)

    def answers(self):
        """Read, and compute what is due: {product: ybar}."""
        self.read()
        return {index: self.compute(index) for index in self.due}

    def submit(self, answers):
        """Hand answers in and ask for the verdict. Raises InvocationRefused."""
        for index in self.due:
            out = self.node.transport.y_bar(index, self.persons)
            out[...] = answers[index]
            self.node.transport.submit(index, out)
        self.progress = self.node.client.end_step(self.progress.step)

    def advance(self, steps=1):
        """So many honest steps."""
        for _ in range(steps):
            self.submit(self.answers())
        return self

    def reach(self, product):
        """Honest steps until this product is due."""
        return self.advance(self.node.products[product].step - self.progress.step)

    def finish(self):
        """Honest to the end: the record."""
        while not self.done:
            self.advance()
        return self.progress.record

    def finish_exactly(self, coordinates, key=None, agreement=None):
        return self.node.expect(self.finish(), coordinates, key, agreement)


def spoil(attempt):
    """A wrong answer to the step that is due: the first record `failed`, or None before the last attempt."""
    answers = attempt.answers()
    for y_bar in answers.values():
        y_bar.reshape(-1)[0] ^= np.uint32(1)
    with refused(Status.VERIFICATION) as caught:
        attempt.submit(answers)
    assert isinstance(caught.value, InvocationRefused)
    return caught.value.record
