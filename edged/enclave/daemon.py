"""``edged enclave --config``: the host port's two applications, their key slots filled, until asked to stop."""

import logging
import time
from contextlib import closing
from typing import Callable, Sequence

from edged.config import Config
from edged.enclave.client import KeyClient
from edged.enclave.host import HostEnclave, Stopped
from edged.enclave.slots import Slot, put_slots, read_slots
from edged.errors import ConfigError, EnclaveError
from edged.events import emit
from edged.notify import Notifier, Watchdog
from edged.stopping import Stop

log = logging.getLogger(__name__)

FILL_TIMEOUT_S = 10.0
_RETRY_S = 0.02


def run(config: Config, stop: Stop) -> None:
    """Raises ConfigError, MissingInput, KeyRefused before the start, EnclaveError once an application ends."""
    if config.enclave.kind != "host" or config.enclave.keys is None:
        raise ConfigError("{}: enclave.kind is \"{}\": `edged enclave` is for \"host\" alone; a Trusty enclave "
                          "is started by the boot loader".format(config.path, config.enclave.kind))
    slots = read_slots(config.enclave.keys)
    for slot in slots:
        slot.read_key()  # what is wrong with a file is said before anything starts
    emit(log, "enclave_unprotected", at=config.enclave.at)
    notifier = Notifier()
    watchdog = Watchdog(notifier)

    def stopped() -> bool:
        # Asked several times a second. The bridge tells whether the applications answer, this process that they run.
        watchdog.progress()
        return stop.is_set()

    try:
        with HostEnclave(config.enclave.at, stopped=stopped) as enclave:
            _fill(enclave, slots, stopped)
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


def _fill(enclave: HostEnclave, slots: Sequence[Slot], stopped: Callable[[], bool]) -> None:
    """Put the keys. The port takes one client at a time, and a bridge that waited for it may have come first."""
    deadline_s = time.monotonic() + FILL_TIMEOUT_S
    while True:
        try:
            with closing(KeyClient(enclave.connect_key())) as client:
                put_slots(client, slots)
            return
        except EnclaveError as error:
            if error.status is not None or time.monotonic() > deadline_s:
                raise
        if stopped():
            raise Stopped
        time.sleep(_RETRY_S)
