"""``edged enclave --config``: the host port's two applications, given back their identity and granted keys, and their
other slots filled, until asked to stop."""

import logging
from contextlib import closing
from typing import Callable, Sequence

from edged.config import Config
from edged.enclave.certified import Watch
from edged.enclave.host import HostEnclave, Stopped
from edged.enclave.keystore import KeyStore, connect
from edged.enclave.slots import Slot, put_slots, read_slots
from edged.errors import ConfigError, EnclaveError
from edged.events import emit
from edged.notify import Notifier, Watchdog
from edged.stopping import Stop

log = logging.getLogger(__name__)


def run(config: Config, stop: Stop) -> None:
    """Raises ConfigError, MissingInput, KeyRefused before the start, EnclaveError once an application ends."""
    if config.enclave.kind != "host":
        raise ConfigError("{}: enclave.kind is \"{}\": `edged enclave` is for \"host\" alone; a Trusty enclave "
                          "is started by the boot loader".format(config.path, config.enclave.kind))
    slots = read_slots(config.enclave.keys) if config.enclave.keys is not None else []
    for slot in slots:
        slot.read_key()  # what is wrong with a file is said before anything starts
    emit(log, "enclave_unprotected", at=config.enclave.at)
    notifier = Notifier()
    watchdog = Watchdog(notifier)
    store = KeyStore(config.key_folder)
    certificate = Watch(store)

    def stopped() -> bool:
        # Asked several times a second. The bridge tells whether the applications answer, this process that they run.
        watchdog.progress()
        certificate.look()
        return stop.is_set()

    try:
        with HostEnclave(config.enclave.at, stopped=stopped) as enclave:
            _fill(enclave, store, slots, stopped)
            emit(log, "enclave_ready", at=config.enclave.at, pids=" ".join(map(str, enclave.pids)), slots=len(slots))
            notifier.ready("{} slots filled".format(len(slots)))
            ended = enclave.wait()
    except Stopped:
        return
    finally:
        notifier.stopping()
        notifier.close()
    emit(log, "enclave_ended", how=ended)
    raise EnclaveError("{}: see its messages above, and start again".format(ended))


def _fill(enclave: HostEnclave, store: KeyStore, slots: Sequence[Slot], stopped: Callable[[], bool]) -> None:
    """The granted keys first: where there is one, none in clear takes its place."""
    try:
        client = connect(enclave.folder, stopped=stopped)
    except EnclaveError:
        if stopped():
            raise Stopped from None
        raise
    with closing(client):
        store.bring_back(client)
        put_slots(client, slots)
