"""A bridge before an enclave whose granted keys are locked, as they are after each start of a platform without a
monotonic store: it waits, says for what, and goes on by itself.
"""

from contextlib import closing
from pathlib import Path

from attacks.test_floors import pytestmark, storeless  # noqa: F401  # a fixture, and what it needs
from bridge_node import BridgeNode, until
from edged import artifacts
from edged.enclave import keystore, wire
from edged.enclave.keystore import KeyStore
from edged.keyserver.holder import Holder
from edged.trust.cosign import Party
from granting import claims_of


class GrantedBridgeNode(BridgeNode):
    """Its keys are granted, as key servers grant them."""

    def put_keys(self):
        store, model = KeyStore(self.enclave.folder), {self.model_key_id: self.model_key}
        city = {self.agreement.data_key: self.data_key}
        city.update(zip((one.alert_key for one in self.agreement.recipients), self.alert_keys))
        self.holders = [Holder(Party.MODEL_OWNER, self.mo_key, model),
                        Holder(Party.QUERY_DATA_OWNER, self.qdo_key, city)]
        with closing(keystore.connect(self.enclave.folder)) as key:
            store.draw(key)
            for holder in self.holders:
                numbers = [(due, 1) for due in holder.due(self.agreement)]
                for one in holder.grants(self.agreement, numbers, claims_of(key).grant):
                    store.install(key, one)

    def say(self, holder):
        with closing(keystore.connect(self.enclave.folder)) as key:
            claims = claims_of(key)
            numbers = {due.slot: 1 for due in holder.due(self.agreement)}
            KeyStore(self.enclave.folder).floor(key, holder.floor(
                numbers, 0, 0, claims.bootseed, claims.grant, 1))

    def locked(self):
        with closing(keystore.connect(self.enclave.folder)) as key:
            return bool(key.info().flags & wire.KEY_FLAG_LOCKED)


def test_a_bridge_waits_for_both_owners_floors(storeless, monkeypatch, caplog):  # noqa: F811
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(storeless))
    with GrantedBridgeNode() as node, caplog.at_level("WARNING"):
        assert node.locked() and Path(node.enclave.folder, keystore.STATE_FILE).exists()
        node.bridge(wait=False)
        for holder in node.holders:
            until(lambda: "fetch-grants" in (node.status()["reason"] or ""), "it does not say what it waits for")
            assert node.died is None and node.status()["enclave"] == "away"
            node.say(holder)
        until(lambda: node.status()["enclave"] == "up", "the bridge does not come up")
        assert node.died is None and not node.locked()
    said = caplog.text.count("granted keys are locked")
    assert 1 <= said <= 1 + len(node.holders), "once, and once more after this test was in its way; not at each attempt"
