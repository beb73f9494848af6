"""The city's end of a site, for tests that have a whole node before it."""

import threading

from edged.alerts import cityconfig
from edged.alerts.record import Observation
from edged.alerts.reports import Received
from edged.alerts.subscriber import Subscriber


class Screen:
    """The subscriber, in a thread: every event that it reported."""

    def __init__(self, site, on_record=None):
        self.events, self._ended = [], threading.Event()
        self._config, self._on_record = cityconfig.load(site.subscriber), on_record
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with Subscriber(self._config, self._on_record) as subscriber:  # of this thread alone
            while not self._ended.is_set():
                self.events += subscriber.poll(0.1)

    def of(self, kind):
        return [event for event in list(self.events) if isinstance(event, kind)]

    @property
    def observations(self):
        return [event.record for event in self.of(Received) if isinstance(event.record, Observation)]

    def close(self):
        self._ended.set()
        self._thread.join()
