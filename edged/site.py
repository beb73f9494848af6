"""A city, a model's owner and one emulated node in one folder, with keys drawn for one run: for the demo and the tests.

It plays every party, so it protects nothing. What it writes is in its final form: the city's keys and subscriber, the
agreement that both signed, the owner's package, the node's configuration.

    city/    as `edged-city keys` and `init` leave it      bundle/    what the city gives to the node
    node/    edged.toml and package, the rest as `edgectl install` puts it, and what runs writes
"""

import os
import socket
import time
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.alerts import keys, nodes
from edged.enclave import wire
from edged.install import install
from edged.model import package
from edged.model.layers import Model
from edged.trust.agreement import ModelTerms, Rule, body_for

NODE = "demo-node"
YEAR_S = 365 * 86400
ONE = 65536  # Q16


def loopback_address() -> str:
    """An address of this machine alone that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "tcp://127.0.0.1:{}".format(probe.getsockname()[1])


class Terms(NamedTuple):
    """What the two parties agree on. rules : (label, least probability, cool-down s). skeletons : seen with alerts"""

    rules: Tuple[Tuple[str, float, int], ...]
    beacon_period_s: int = 5
    beacon_limit_s: int = 300
    clips_per_hour: int = 100000
    sees: int = wire.EDGED_SEES_SCORES
    skeletons: bool = False
    status: wire.MessageStatus = wire.MessageStatus.TEST


class Site:
    """Makes everything in ``folder``, which is new or empty. cameras : name -> its table's lines, without the key

    address : where the subscriber listens, tcp://127.0.0.1:PORT
    granted : no key comes in clear; who fills the slots by grants finds what they are made of here
    """

    def __init__(self, folder: str, model: Model, model_id: str, terms: Terms, cameras: Dict[str, Sequence[str]],
                 address: str, placement: str = "masked", transport: str = "window", threads: Optional[int] = None,
                 log: str = "text", granted: bool = False) -> None:
        self.folder, self.address = Path(folder), address
        self.city, self.node = self.folder / "city", self.folder / "node"
        self.run = self.node / "run"
        self.config = self.node / "edged.toml"
        self._cameras, self._log = cameras, log
        self._placement, self._transport, self._threads = placement, transport, threads
        self._granted = granted
        owner, model_key, key_id = Ed25519PrivateKey.generate(), os.urandom(32), os.urandom(16)
        self.owner, self.model_key = owner, model_key
        public = keys.make_keys(str(self.city))
        self.recipient = public.recipients[0].rcpt
        self._server_key = public.curve
        now_s = int(time.time())
        self.signed = signed = keys.demo_agreement(
            str(self.city), owner, ModelTerms(model_id, 1, key_id),
            [Rule(label, round(least * ONE), cool_down_s) for label, least, cool_down_s in terms.rules],
            body_for(len(model.labels), len(terms.rules), terms.skeletons), now_s - YEAR_S, now_s + YEAR_S,
            terms.status,
            beacon_period_s=terms.beacon_period_s, beacon_limit_s=terms.beacon_limit_s, score_bits=10,
            clips_per_hour=terms.clips_per_hour, sees=terms.sees, skeletons=terms.skeletons)
        bundle = self.folder / "bundle"
        self.subscriber = keys.init(str(self.city), signed, address, address, list(cameras), str(bundle),
                                    mo=keys.public_bytes(owner), model_key=None if granted else model_key)
        self.node.mkdir(mode=0o700)
        self._write(self.node / "model.pkg", package.pack(model, model_key, owner, model_id, key_id=key_id))
        self._write(self.config, self._text().encode("utf-8"))
        nodes.allow(str(self.city / nodes.FILE), NODE, install(str(bundle), str(self.config)).public)

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        handle = os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)

    def _text(self) -> str:
        lines = ["schema = 1", "[node]", 'name = "{}"'.format(NODE), 'state = "state"', 'run = "run"',
                 'log = "{}"'.format(self._log),
                 "[enclave]", 'kind = "host"', 'package = "model.pkg"',
                 'agreements = ["agreement.cose"]', 'placement = "{}"'.format(self._placement),
                 'transport = "{}"'.format(self._transport), "[accelerator]", 'kind = "cpu"']
        if not self._granted:
            lines.insert(lines.index('kind = "host"') + 1, 'keys = "slots"')
        lines += [] if self._threads is None else ["threads = {}".format(self._threads)]
        for name, more in self._cameras.items():
            lines += ["[camera.{}]".format(name), 'key = "cameras/{}.key"'.format(name)] + list(more)
        lines += ["[outbox]", 'key = "curve.key"', "[[subscriber]]", 'name = "city"',
                  'address = "{}"'.format(self.address), 'server_key = "{}"'.format(self._server_key),
                  'recipient = "{}"'.format(self.recipient.hex())]
        return "\n".join(lines) + "\n"
