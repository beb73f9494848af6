"""The spool: what it took it holds, through kills, full disks and jumping clocks, until a cap evicts it."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edged.alerts import spool as spool_module
from edged.alerts.record import split_record
from edged.alerts.spool import Spool, Waiting
from edged.errors import PackageError, SpoolError
from twin import CITY, EPOCH, ROOMY, outer_record as record

POLICE = b"p" * 16


def seqs(spool, rcpt=CITY):
    return [split_record(sealed)[0].seq for _, sealed in spool.pending(rcpt, 0, 10 ** 6)]


class Running:
    """A clock of one boot."""

    def __init__(self):
        self.boot, self.at = "first", 100.0

    def __call__(self):
        return self.boot, self.at


@pytest.fixture
def spool(tmp_path):
    with Spool(str(tmp_path / "spool.db"), ROOMY) as opened:
        yield opened


# ------------------------------------------------------------------------------------------- put, pending, ack


def test_records_come_out_in_the_order_of_their_arrival_for_each_recipient_alone(spool):
    assert spool.put([record(2), record(1), record(7, POLICE)]) == 3
    assert spool.put([record(3)]) == 1
    assert seqs(spool) == [2, 1, 3] and seqs(spool, POLICE) == [7]
    assert [sealed for _, sealed in spool.pending(CITY)] == [record(2), record(1), record(3)]


def test_pending_goes_on_after_a_row_and_stops_at_the_limit(spool):
    spool.put([record(seq) for seq in range(1, 10)])
    first = spool.pending(CITY, 0, 4)
    assert [split_record(sealed)[0].seq for _, sealed in spool.pending(CITY, first[-1][0], 3)] == [5, 6, 7]


def test_the_same_record_again_is_no_error_and_is_not_doubled_even_once_acknowledged(spool):
    spool.put([record(1), record(2)])
    spool.ack(CITY, [(EPOCH, 1)])
    assert spool.put([record(1), record(2), record(3)]) == 1
    assert seqs(spool) == [2, 3]


def test_another_record_under_the_same_number_is_refused_and_nothing_of_that_put_is_stored(spool):
    spool.put([record(1)])
    with pytest.raises(PackageError, match="another one is stored under this number"):
        spool.put([record(2), record(1, content=b"other")])
    assert seqs(spool) == [1]


@pytest.mark.parametrize("bad", [b"", record(1)[:-1], record(1 << 63)])
def test_a_put_with_a_malformed_record_stores_nothing(spool, bad):
    with pytest.raises(PackageError):
        spool.put([record(1), bad])
    assert seqs(spool) == []


def test_an_acknowledgement_is_for_one_recipient_and_of_what_is_not_there_is_passed_over(spool):
    spool.put([record(1), record(1, POLICE), record(2)])
    spool.ack(CITY, [(EPOCH, 1), (b"x" * 16, 2), (EPOCH, (1 << 64) - 1)])
    assert seqs(spool) == [2] and seqs(spool, POLICE) == [1]


def test_waiting_counts_what_is_not_acknowledged_by_recipient(spool):
    spool.put([record(1), record(2), record(1, POLICE)])
    spool.ack(CITY, [(EPOCH, 2)])
    assert spool.waiting() == {CITY: Waiting(1, len(record(1))), POLICE: Waiting(1, len(record(1)))}


def test_the_enclaves_state_is_the_last_one_stored(tmp_path):
    with Spool(str(tmp_path / "spool.db"), ROOMY) as spool:
        assert spool.state() is None
        spool.set_state(b"one")
        spool.set_state(b"two")
    with Spool(str(tmp_path / "spool.db"), ROOMY) as spool:
        assert spool.state() == b"two"


# ------------------------------------------------------------------------------------------------ durability

PUT = """
import sys
sys.path.insert(0, {tests!r})
from test_spool import ROOMY, Spool, record
with Spool({path!r}, ROOMY) as spool:
    for seq in range({first}, {last}):
        spool.put([record(seq)])
        print(seq, flush=True)
"""


def putting(path, first, last):
    code = PUT.format(tests=str(Path(__file__).parent), path=str(path), first=first, last=last)
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE,
                            universal_newlines=True)


def test_what_put_returned_from_is_there_after_a_kill(tmp_path):
    process = putting(tmp_path / "spool.db", 1, 10 ** 6)
    said = [int(process.stdout.readline()) for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()
    process.stdout.close()
    with Spool(str(tmp_path / "spool.db"), ROOMY) as spool:
        held = seqs(spool)
    assert held[:len(said)] == said and len(held) <= len(said) + 1


def test_two_processes_put_and_acknowledge_at_once(tmp_path):
    """Two writers make the file together, too; nothing is lost, nothing is doubled."""
    path = tmp_path / "spool.db"
    writers = [putting(path, 1, 150), putting(path, 150, 300)]
    taken = []
    with Spool(str(path), ROOMY) as spool:
        deadline = time.monotonic() + 60
        while len(taken) < 299 and time.monotonic() < deadline:
            here = seqs(spool)
            spool.ack(CITY, [(EPOCH, seq) for seq in here])
            taken += here
            time.sleep(0.005)
    for writer in writers:
        assert writer.wait() == 0
        writer.stdout.close()
    assert sorted(taken) == list(range(1, 300))


def test_a_full_disk_is_one_line_and_what_was_stored_stays(spool):
    spool.put([record(1)])
    spool._base.execute("PRAGMA max_page_count=40")
    with pytest.raises(SpoolError, match="spool.db: disk full: make room") as caught:
        for batch in range(100):
            spool.put([record(1000 * batch + seq) for seq in range(2, 30)])
    assert caught.value.exit_code == 69 and "\n" not in str(caught.value)
    stored = seqs(spool)
    assert stored[0] == 1 and len(stored) % 28 == 1
    spool._base.execute("PRAGMA max_page_count=100000")
    assert spool.put([record(10 ** 6)]) == 1


@pytest.mark.parametrize("at", [0, 4096, 3 * 4096])
def test_a_damaged_file_is_reported_with_the_remedy_and_left_where_it_is(tmp_path, at):
    path = tmp_path / "spool.db"
    with Spool(str(path), ROOMY) as spool:
        spool.put([record(seq) for seq in range(200)])
    content = bytearray(path.read_bytes())
    content[at:at + 512] = b"\xa5" * 512
    path.write_bytes(content)
    with pytest.raises(SpoolError, match=r"damaged \(.*\): stop edged, move it.*aside.*reported as a gap") as caught:
        with Spool(str(path), ROOMY) as spool:
            spool.waiting()
            seqs(spool)
            spool.put([record(seq) for seq in range(1000, 1100)])
    assert caught.value.exit_code == 69 and "\n" not in str(caught.value)
    assert path.read_bytes()[at:at + 4] == b"\xa5" * 4


def test_a_database_of_something_else_or_of_another_release_is_left_alone(tmp_path):
    other = tmp_path / "other.db"
    base = sqlite3.connect(str(other))
    base.execute("CREATE TABLE songs (name)")
    base.commit()
    base.close()
    with pytest.raises(SpoolError, match="other.db: not made by edged"):
        Spool(str(other), ROOMY)
    later = tmp_path / "later.db"
    Spool(str(later), ROOMY).close()
    base = sqlite3.connect(str(later))
    base.execute("PRAGMA user_version=2")
    base.close()
    with pytest.raises(SpoolError, match="later.db: schema 2, this release reads 1"):
        Spool(str(later), ROOMY)


def test_a_process_that_holds_it_for_too_long_is_reported(spool, tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "BUSY_TIMEOUT_S", 0.05)
    with Spool(str(tmp_path / "spool.db"), ROOMY) as other:
        spool._base.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError, match="held by another process"):
            other.put([record(1)])
        spool._base.execute("ROLLBACK")
        assert other.put([record(1)]) == 1


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolError, match="spool.db: (Not a directory|File exists)"):
        Spool(str(tmp_path / "file" / "spool.db"), ROOMY)


def test_nobody_else_may_read_any_of_its_files(tmp_path):
    before = os.umask(0)
    try:
        with Spool(str(tmp_path / "state" / "spool.db"), ROOMY) as spool:
            spool.put([record(1)])
            files = list((tmp_path / "state").iterdir())
            assert len(files) == 3 and {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path):
    Spool(str(tmp_path / "spool.db"), ROOMY).close()
    (tmp_path / "spool.db").chmod(0o644)
    with Spool(str(tmp_path / "spool.db"), ROOMY):
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_a_writer_keeps_nobody_from_opening_and_reading(spool, tmp_path, monkeypatch):
    """`edgectl status` asks a spool that the bridge is writing to."""
    spool.put([record(1)])
    spool._base.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(spool_module, "BUSY_TIMEOUT_S", 0.05)
    with Spool(str(tmp_path / "spool.db"), ROOMY) as other:
        assert seqs(other) == [1]
    spool._base.execute("ROLLBACK")


def test_synchronisation_is_full_and_the_log_is_written_ahead(spool):
    assert spool._base.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert spool._base.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


# -------------------------------------------------------------------------------------------------- eviction


def capped(tmp_path, clock=None, **caps):
    return Spool(str(tmp_path / "spool.db"), ROOMY._replace(**caps), clock or Running())


def test_under_its_caps_nothing_is_evicted(spool):
    spool.put([record(1)])
    assert spool.evict() is None and seqs(spool) == [1]


def test_acknowledged_records_go_first_and_silently(tmp_path):
    with capped(tmp_path, max_rows=3) as spool:
        spool.put([record(seq) for seq in range(1, 7)])
        spool.ack(CITY, [(EPOCH, seq) for seq in (4, 5, 6)])
        assert spool.evict() is None
        assert seqs(spool) == [1, 2, 3]


def test_then_the_oldest_go_and_are_reported_as_ranges_of_each_recipient(tmp_path):
    with capped(tmp_path, max_rows=2) as spool:
        spool.put([record(1), record(2), record(1, POLICE), record(3), record(9), record(10)])
        spool.ack(CITY, [(EPOCH, 10)])
        evicted = spool.evict()
        assert evicted.records == {CITY: [(EPOCH, 1, 2)], POLICE: [(EPOCH, 1, 1)]}
        assert seqs(spool) == [3, 9]


@pytest.mark.parametrize("kinds", [(0, 1, 4, 3), (3, 4, 1, 0), (2, 2, 0, 1)])
def test_nothing_in_a_record_makes_it_go_or_stay(tmp_path, kinds):
    with capped(tmp_path, max_rows=2) as spool:
        spool.put([record(seq, kind=kind, content=bytes([seq]) * 17) for seq, kind in enumerate(kinds, 1)])
        assert spool.evict().records == {CITY: [(EPOCH, 1, 2)]} and seqs(spool) == [3, 4]


def test_the_cap_on_bytes_counts_records(tmp_path):
    with capped(tmp_path, max_bytes=3 * len(record(1)) + 1) as spool:
        spool.put([record(seq) for seq in range(1, 6)])
        assert spool.evict().records == {CITY: [(EPOCH, 1, 2)]}
        assert sum(waiting.bytes for waiting in spool.waiting().values()) == 3 * len(record(1))


def test_age_counts_while_the_node_runs_over_restarts_of_it(tmp_path):
    clock = Running()
    with capped(tmp_path, clock, max_age_s=60) as spool:
        spool.put([record(1)])
        clock.at += 50
        spool.put([record(2)])
        assert spool.evict() is None
        clock.boot, clock.at = "second", 5000.0
    with capped(tmp_path, clock, max_age_s=60) as spool:
        spool.put([record(3)])  # the 50 s before the restart count, the time in between does not
        clock.at += 9
        assert spool.evict() is None
        clock.at += 2
        assert spool.evict().records == {CITY: [(EPOCH, 1, 1)]} and seqs(spool) == [2, 3]


def test_a_jump_of_time_and_date_evicts_nothing(tmp_path, monkeypatch):
    with Spool(str(tmp_path / "spool.db"), ROOMY._replace(max_age_s=60)) as spool:
        spool.put([record(1)])
        monkeypatch.setattr(time, "time", lambda: 4 * 10 ** 9)
        monkeypatch.setattr(time, "time_ns", lambda: 4 * 10 ** 18)
        spool.put([record(2)])
        assert spool.evict() is None and seqs(spool) == [1, 2]


def test_what_was_evicted_is_reported_until_it_is_announced_even_over_a_restart(tmp_path):
    with capped(tmp_path, max_rows=1) as spool:
        spool.put([record(1), record(2)])
        assert spool.evict().records == {CITY: [(EPOCH, 1, 1)]}
    with capped(tmp_path, max_rows=1) as spool:
        evicted = spool.evict()
        assert evicted.records == {CITY: [(EPOCH, 1, 1)]}
        spool.put([record(3)])
        spool.announced(evicted)
        assert spool.evict().records == {CITY: [(EPOCH, 2, 2)]}


def test_what_is_announced_to_one_recipient_is_reported_of_the_others_still(tmp_path):
    other = b"o" * 16
    with capped(tmp_path, max_rows=1) as spool:
        spool.put([record(1), record(1, rcpt=other), record(2), record(2, rcpt=other)])
        evicted = spool.evict()
        assert evicted.records == {CITY: [(EPOCH, 1, 2)], other: [(EPOCH, 1, 1)]}
        spool.announced(evicted._replace(records={CITY: evicted.records[CITY]}))
        assert spool.evict().records == {other: [(EPOCH, 1, 1)]}
        spool.announced(evicted._replace(records={}))
        assert spool.evict().records == {other: [(EPOCH, 1, 1)]}


def test_readers_see_whole_transactions_only(tmp_path):
    """A reader beside a writer of batches never sees half a batch."""
    path, seen, stop = str(tmp_path / "spool.db"), [], threading.Event()
    Spool(path, ROOMY).close()

    def read():
        with Spool(path, ROOMY) as spool:
            while not stop.is_set():
                seen.append(len(spool.pending(CITY, 0, 10 ** 6)))

    reader = threading.Thread(target=read)
    reader.start()
    with Spool(path, ROOMY) as spool:
        for batch in range(300):
            spool.put([record(10 * batch + seq) for seq in range(10)])
            if batch > 20 and len(set(seen)) > 5:
                break
    stop.set()
    reader.join()
    assert len(set(seen)) > 5 and {count % 10 for count in seen} == {0}
