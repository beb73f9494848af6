"""`edged run` starts a node's processes in order, starts again what ends, and leaves none behind."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from edged import config, status, supervisor
from edged.alerts.spool import Waiting
from edged.child import Child, Patience, delay_s, how
from edged.errors import BusError, ConfigError, MissingInput
from edged.stopping import Stop

ROOT = str(Path(__file__).resolve().parent.parent)

CONFIG = """\
schema = 1
[node]
name = "n1"
state = "state"
run = "run"
[enclave]
kind = "host"
keys = "slots"
package = "model.pkg"
agreements = ["a.cose"]
[camera.a]
source = "generator:1"
key = "a.key"
[camera.b]
source = "generator:2"
key = "b.key"
[outbox]
key = "curve.key"
[[subscriber]]
name = "city"
address = "tcp://127.0.0.1:5555"
server_key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
recipient = "00112233445566778899aabbccddeeff"
"""

# A process of the node, which does what a file beside the configuration says: a list of words for each start.
FAKE = """
import json, os, signal, sys, time
sys.path.insert(0, {root!r})
from edged.notify import Notifier, Watchdog
from edged.parent import die_with
from edged.stopping import Stop
arguments = sys.argv[1:]
name, folder = " ".join(arguments[:-4]), os.path.dirname(arguments[-3])
assert arguments[-4] == "--config" and arguments[-2] == "--die-with"
def note(word):
    handle = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, "{{}} {{}} {{}}\\n".format(name.replace(" ", "-"), word, os.getpid()).encode())
    os.close(handle)
die_with(int(arguments[-1]))
stop, notifier = Stop().on_signals(), Notifier()
watchdog = Watchdog(notifier)
with open(os.path.join(folder, "plan.json")) as file:
    plan = json.load(file).get(name, [["ready", "run"]])
with open(os.path.join(folder, "log"), "a+") as file:
    file.seek(0)
    starts = sum(line.startswith(name.replace(" ", "-") + " start ") for line in file)
note("start")
for word in plan[min(starts, len(plan) - 1)]:
    if word == "ready":
        notifier.ready("so far so good")
        note("ready")
    elif word == "run":
        while not stop.wait(0.02):
            watchdog.progress()
        note("stop")
        sys.exit(0)
    elif word == "hang":
        stop.wait()
        note("stop")
        sys.exit(0)
    elif word == "deaf":
        note("deaf")
        while True:
            time.sleep(60)
    elif word == "done":
        notifier.done()
    elif word.startswith("wait "):
        time.sleep(float(word.split()[1]))
    elif word.startswith("exit "):
        note("exit")
        print("edged: the one line of " + name, file=sys.stderr, flush=True)
        os._exit(int(word.split()[1]))
"""

SWIFT = Patience(shortest_s=0.02, longest_s=0.1, healthy_s=60, start_s=20, watchdog_s=20, order_s=10)


class Node:
    """A folder with a configuration and fakes; ``run`` supervises it in a thread that lives as long."""

    def __init__(self, folder):
        self.folder = folder
        self.stop = Stop()
        self.error = None
        (folder / "edged.toml").write_text(CONFIG)
        (folder / "fake.py").write_text(FAKE.format(root=ROOT))
        self.path = str(folder / "edged.toml")
        self.command = (sys.executable, "-S", "-E", str(folder / "fake.py"))  # swift: it needs no package
        self.plan({})

    def plan(self, plan):
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def run(self, **given):
        def supervise():
            try:
                supervisor.run(self.path, self.stop, **{"patience": SWIFT, "command": self.command, **given})
            except Exception as error:
                self.error = error

        self.thread = threading.Thread(target=supervise, daemon=True)
        self.thread.start()

    def end(self):
        """Ask it to stop; the words of the log."""
        self.stop.set()
        return self.ended()

    def ended(self):
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.words()

    def log(self):
        """(process, word, pid)"""
        try:
            rows = [line.split() for line in (self.folder / "log").read_text().splitlines()]
        except FileNotFoundError:
            return []
        return [(name, word, int(pid)) for name, word, pid in rows]

    def words(self):
        return ["{} {}".format(name, word) for name, word, _ in self.log()]

    def until(self, holds):
        deadline_s = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline_s, self.words()
            assert self.thread.is_alive(), self.error
            time.sleep(0.01)

    def until_word(self, *words):
        self.until(lambda: all(self.words().count(word) >= words.count(word) for word in words))

    def pid(self, name):
        return [pid for found, word, pid in self.log() if (found, word) == (name, "start")][-1]

    def status(self):
        return json.loads((self.folder / "run" / "status.json").read_text())["processes"]


ALL = ["enclave", "bridge", "outbox", "camera-a", "camera-b"]


@pytest.fixture
def node(tmp_path_factory):
    made = Node(tmp_path_factory.mktemp("s"))
    yield made
    made.stop.set()
    if hasattr(made, "thread"):
        made.thread.join(60)


def up(node, **given):
    node.run(**given)
    node.until_word(*[name + " ready" for name in ALL])


def gone(pid):
    try:
        with open("/proc/{}/stat".format(pid), encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_processes_start_in_order_each_when_the_one_before_is_ready(node):
    node.plan({"enclave": [["wait 0.3", "ready", "run"]], "bridge": [["wait 0.3", "ready", "run"]]})
    up(node)
    words = node.end()
    begun = [word for word in words if word.split()[1] in ("start", "ready")]
    assert begun[:6] == ["enclave start", "enclave ready", "bridge start", "bridge ready", "outbox start",
                         "outbox ready"]
    assert {word.split()[0] for word in begun[6:]} == {"camera-a", "camera-b"}
    assert node.error is None


def test_processes_stop_in_order_each_before_the_next_is_asked(node):
    up(node)
    words = [word for word in node.end() if word.endswith(" stop")]
    assert sorted(words[:2]) == ["camera-a stop", "camera-b stop"]
    assert words[2:] == ["bridge stop", "outbox stop", "enclave stop"]
    assert all(gone(pid) for _, _, pid in node.log())


def test_what_is_not_ready_in_time_does_not_keep_the_others_from_their_work(node):
    """The outbox delivers what the spool holds, even while the enclave is broken for good."""
    node.plan({"enclave": [["exit 69"]]})
    node.run(patience=SWIFT._replace(order_s=0.2))
    node.until_word(*[name + " ready" for name in ALL[1:]])
    node.end()
    assert node.error is None


@pytest.mark.parametrize("victim", ["enclave", "bridge", "camera-b"])
def test_a_killed_process_returns_and_the_others_stay(node, victim):
    up(node)
    before = {name: node.pid(name) for name in ALL}
    os.kill(before[victim], signal.SIGKILL)
    node.until_word(victim + " ready", victim + " ready")
    assert {name for name in ALL if node.pid(name) != before[name]} == {victim}
    assert all(not gone(node.pid(name)) for name in ALL)
    node.until(lambda: node.status()[victim.replace("-", " ")]["state"] == "running")
    shown = node.status()[victim.replace("-", " ")]
    assert (shown["restarts"], shown["last_end"], shown["pid"]) == (1, "SIGKILL", node.pid(victim))


@pytest.mark.parametrize("victim", ["outbox", "camera-a"])
def test_a_process_that_somebody_else_asked_to_stop_returns(node, victim):
    """It ends with 0, as a camera at the end of its file does, and is not at the end of anything."""
    up(node)
    os.kill(node.pid(victim), signal.SIGTERM)
    node.until_word(victim + " ready", victim + " ready")
    node.end()


def test_many_kills_in_any_order_later_all_are_there(node):
    """Each process is killed again as soon as it is back, whatever the others are doing."""
    up(node)
    rng, rounds = random.Random(7), 6
    for count in range(1, rounds + 1):
        for victim in rng.sample(ALL, len(ALL)):
            node.until_word(*[victim + " start"] * count)
            os.kill(node.pid(victim), signal.SIGKILL)
    node.until_word(*[name + " start" for name in ALL] * (rounds + 1))
    node.until(lambda: all(shown["state"] == "running" for shown in node.status().values()))
    assert sum(shown["restarts"] for shown in node.status().values()) == rounds * len(ALL)
    node.end()
    assert node.error is None
    assert all(gone(pid) for _, _, pid in node.log())


UNUSABLE = [(65, ["exit {}"]), (66, ["ready", "exit {}"]), (76, ["exit {}"]), (77, ["ready", "exit {}"])]


@pytest.mark.parametrize("code, starts", [(2, 1), (78, 1), (78, 2)])
def test_a_wrong_configuration_ends_the_run_whenever_it_is_found(node, code, starts):
    node.plan({"bridge": [["ready", "exit 1"]] * (starts - 1) + [["exit {}".format(code)]]})
    node.run()
    words = node.ended()
    assert isinstance(node.error, supervisor.ProcessRefused)
    assert (node.error.exit_code, str(node.error)) == (code, "bridge ended with {}: see its last line".format(code))
    assert words.count("bridge start") == starts
    assert words[-1] == "enclave stop"
    assert all(gone(pid) for _, _, pid in node.log())


@pytest.mark.parametrize("victim, code, words", [(victim, *one) for victim, one in zip(
    ("enclave", "bridge", "outbox", "bridge"), UNUSABLE)])
def test_what_was_given_to_all_and_is_unusable_ends_the_run_at_the_first_start(node, victim, code, words):
    node.plan({victim: [[word.format(code) for word in words]]})
    node.run()
    seen = node.ended()
    assert node.error.exit_code == code
    assert seen.count(victim + " start") == 1


@pytest.mark.parametrize("code, words", UNUSABLE)
def test_a_camera_whose_key_or_agreement_is_unusable_is_named_and_tried_again_and_the_others_go_on(node, caplog, code,
                                                                                                    words):
    """One city's file is not to stop the others' clips; and the file may come later."""
    unusable = [word.format(code) for word in words]
    node.plan({"camera b": [unusable, unusable, ["exit 1"], ["ready", "run"]]})
    node.run(patience=SWIFT._replace(shortest_s=1.0, longest_s=1.0))
    node.until(lambda: node.words().count("camera-b exit") == 1 and node.status()["camera b"]["state"] == "refused")
    named, = [one for one in caplog.records if one.getMessage().startswith("process_refused")]
    assert named.levelname == "ERROR" and 'process="camera b" code={} again_in_s=1'.format(code) in named.getMessage()
    found, = status._refused(json.loads((node.folder / "run" / "status.json").read_text()))
    assert "camera b: cannot do its work" in str(found) and "ended with {}".format(code) in str(found)
    node.until_word(*["camera-b start"] * 4)
    node.until(lambda: node.status()["camera b"]["state"] == "running")
    assert node.words().count("camera-a start") == 1
    node.end()
    assert node.error is None


def test_a_camera_whose_configuration_is_refused_is_not_started_again_and_the_others_go_on(node):
    """As its unit does it."""
    node.plan({"camera b": [["ready", "exit 78"]]})
    node.run()
    node.until_word("camera-a ready", "camera-b exit")
    node.until(lambda: node.status()["camera b"]["state"] == "refused")
    time.sleep(0.3)
    assert node.end().count("camera-b start") == 1
    assert node.error is None


def test_where_no_camera_can_do_its_work_the_run_ends(node):
    node.plan({"camera a": [["exit 77"]], "camera b": [["wait 0.3", "exit 66"]]})
    node.run()
    words = node.ended()
    assert isinstance(node.error, supervisor.ProcessRefused) and node.error.exit_code == 66
    assert words[-1] == "enclave stop"


def test_a_run_until_done_ends_with_the_code_of_a_camera_that_cannot_do_its_work(node):
    node.plan({"camera a": [["exit 77"]], "camera b": [["ready", "wait 0.5", "done", "exit 0"]]})
    node.run(until_done=True)
    node.ended()
    assert isinstance(node.error, supervisor.ProcessRefused) and node.error.exit_code == 77


@pytest.mark.parametrize("victim", ["outbox", "camera b"])
@pytest.mark.parametrize("code", [66, 77])
def test_the_same_end_later_is_followed_by_a_restart(node, code, victim):
    node.plan({victim: [["ready", "exit 1"], ["exit {}".format(code)], ["ready", "run"]]})
    node.run()
    name = victim.replace(" ", "-")
    node.until_word(*[name + " start"] * 3, *[name + " ready"] * 2)
    node.end()
    assert node.error is None


@pytest.mark.parametrize("code", [0, 69])
def test_every_other_end_is_followed_by_a_restart(node, code):
    node.plan({"outbox": [["exit {}".format(code)], ["ready", "exit {}".format(code)], ["ready", "run"]]})
    up(node)
    node.until_word("outbox start", "outbox start", "outbox start", "outbox ready", "outbox ready")
    node.end()
    assert node.error is None


def test_a_camera_at_the_end_of_its_file_is_done_and_the_others_stay(node):
    node.plan({"camera a": [["ready", "done", "exit 0"]]})
    up(node)
    node.until(lambda: node.status()["camera a"]["state"] == "done")
    time.sleep(0.3)
    words = node.end()
    assert words.count("camera-a start") == 1
    assert node.status()["camera a"]["state"] == "done"


def test_a_run_until_done_ends_by_itself_once_every_camera_is_done(node):
    node.plan({"camera a": [["ready", "done", "exit 0"]],
               "camera b": [["exit 1"], ["ready", "wait 0.2", "done", "exit 0"]]})
    node.run(until_done=True)
    words = node.ended()
    assert node.error is None
    assert [word for word in words if word.endswith(" stop")] == ["bridge stop", "outbox stop", "enclave stop"]


def test_the_outbox_stays_until_the_spool_is_empty(node, monkeypatch):
    rcpt = bytes.fromhex("00112233445566778899aabbccddeeff")
    left = [4]

    def waiting(_):
        left[0] -= 1
        assert "bridge stop" in node.words() and "outbox stop" not in node.words()
        return {rcpt: Waiting(left[0], 1)} if left[0] else {b"of nobody": Waiting(1, 1)}

    monkeypatch.setattr(supervisor, "waiting_records", waiting)
    up(node)
    words = node.end()
    assert node.error is None and left == [0]
    assert words[-2:] == ["outbox stop", "enclave stop"]


def test_the_outbox_stays_no_longer_than_its_time(node, monkeypatch):
    rcpt = bytes.fromhex("00112233445566778899aabbccddeeff")
    monkeypatch.setattr(supervisor, "waiting_records", lambda _: {rcpt: Waiting(1, 1)})
    monkeypatch.setattr(supervisor, "DRAIN_S", 0.2)
    up(node)
    assert node.end()[-1] == "enclave stop"


def test_a_process_that_does_not_stop_is_killed(node, monkeypatch):
    monkeypatch.setitem(supervisor.STOP_S, "bridge", 0.3)
    node.plan({"bridge": [["ready", "deaf"]]})
    up(node)
    words = node.end()
    assert words[-2:] == ["outbox stop", "enclave stop"]
    assert gone(node.pid("bridge"))
    assert node.status()["bridge"]["last_end"] == "SIGKILL"


def test_a_process_that_no_longer_moves_is_killed_and_returns(node):
    node.plan({"bridge": [["ready", "hang"], ["ready", "run"]]})
    up(node, patience=SWIFT._replace(watchdog_s=1.5))
    node.until_word("bridge ready", "bridge ready")
    node.end()
    assert node.words().count("outbox start") == 1, "who moves is left alone"


def test_a_process_that_never_gets_ready_is_killed_and_returns(node):
    node.plan({"enclave": [["hang"], ["ready", "run"]]})
    up(node, patience=SWIFT._replace(start_s=1.5))
    assert node.words().count("enclave start") >= 2
    node.end()


def supervising(node):
    """A supervisor in a process of its own, with a process group of its own, all its processes ready."""
    script = ("import sys; sys.path.insert(0, {!r}); from edged import supervisor; from edged.stopping import Stop\n"
              "supervisor.run(sys.argv[1], Stop().on_signals(), command=sys.argv[2:])").format(ROOT)
    process = subprocess.Popen([sys.executable, "-c", script, node.path] + list(node.command), start_new_session=True)
    deadline_s = time.monotonic() + 30
    while sum(word.endswith(" ready") for word in node.words()) < 5:
        assert time.monotonic() < deadline_s and process.poll() is None
        time.sleep(0.01)
    return process


def test_a_ctrl_c_reaches_the_supervisor_alone_which_stops_all_in_order(node):
    process = supervising(node)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0
    stops = [word for word in node.words() if word.endswith(" stop")]
    assert stops[2:] == ["bridge stop", "outbox stop", "enclave stop"]


def test_no_process_outlives_a_killed_supervisor(node):
    process = supervising(node)
    process.kill()
    process.wait()
    deadline_s = time.monotonic() + 30
    while not all(gone(pid) for _, _, pid in node.log()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    # What it left behind does not keep the next one from its work.
    loaded = config.load(node.path)
    assert loaded.status_file.exists() and not supervisor.is_running(loaded)
    (node.folder / "log").unlink()
    up(node)
    assert supervisor.is_running(loaded)
    node.end()
    assert not supervisor.is_running(loaded)


def test_a_folder_has_one_supervisor(node):
    up(node)
    with pytest.raises(BusError, match="in use by another `edged run`"):
        supervisor.run(node.path, Stop(), command=node.command)
    assert node.words().count("enclave start") == 1


def test_a_folder_that_is_too_long_for_a_socket_is_refused_before_anything_starts(node):
    (node.folder / "edged.toml").write_text(CONFIG.replace('run = "run"', 'run = "{}"'.format("r" * 100)))
    with pytest.raises(ConfigError, match="shorter path"):
        supervisor.run(node.path, Stop(), command=node.command)
    assert node.words() == []


def test_a_trusty_node_starts_no_enclave(node):
    (node.folder / "edged.toml").write_text(CONFIG.replace('"host"', '"trusty"').replace('keys = "slots"\n', ""))
    node.run()
    node.until_word(*[name + " ready" for name in ALL[1:]])
    assert not any(word.startswith("enclave") for word in node.end())


def test_a_wrong_configuration_starts_nothing(node):
    (node.folder / "edged.toml").unlink()
    with pytest.raises(MissingInput):
        supervisor.run(node.path, Stop(), command=node.command)


def test_the_status_file_names_every_process(node):
    up(node)
    node.until(lambda: all(shown["state"] == "running" for shown in node.status().values()))
    shown = node.status()
    assert list(shown) == ["enclave", "bridge", "outbox", "camera a", "camera b"]
    for name, one in shown.items():
        assert one["pid"] == node.pid(name.replace(" ", "-")) and one["restarts"] == 0 and one["last_end"] is None
        assert one["status"] == "so far so good"
        assert abs(one["since"] - time.time()) < 60
    node.end()
    assert {one["state"] for one in node.status().values()} == {"stopped"}
    assert [path.name for path in (node.folder / "run").iterdir() if path.suffix == ".new"] == []


def test_a_status_file_that_cannot_be_written_stops_nothing(node):
    (node.folder / "run" / "status.json").mkdir(parents=True)
    up(node)
    node.end()
    assert node.error is None


def test_a_restart_that_the_system_refuses_is_tried_again(node, monkeypatch):
    start, refusals = Child.start, [2]

    def refuse(child, environment):
        if child.name == "bridge" and refusals[0]:
            refusals[0] -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        start(child, environment)

    monkeypatch.setattr(Child, "start", refuse)
    up(node)
    assert refusals == [0]
    node.end()
    assert node.error is None


# The delays.


def test_delays_double_up_to_the_longest_with_a_quarter_of_jitter():
    patience = Patience()
    assert [delay_s(patience, count, 0.0) for count in range(9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    assert delay_s(patience, 10 ** 6, 0.0) == 30.0
    assert delay_s(patience, 0, 0.5) == pytest.approx(0.2 * 1.125)
    assert max(delay_s(patience, 50, chance / 100) for chance in range(100)) < 37.5


@pytest.fixture
def child():
    """(a child that has nothing to run, what sets its clock)"""
    now = [0.0]
    made = Child("bridge", ["true"], Patience(), clock=lambda: now[0], chance=lambda: 0.0)
    made.start(os.environ)
    yield made, lambda at: now.__setitem__(0, at)
    if made.pid is not None:
        made.reap()


@pytest.mark.parametrize("healthy_s, expected", [(59.9, 0.4), (60.0, 0.2)])
def test_who_was_healthy_for_a_minute_begins_with_the_shortest_delay_again(child, healthy_s, expected):
    child, set_clock = child
    assert child.rest(1) == 0.2
    child.start(os.environ)
    child.hear({"READY": "1"})
    set_clock(healthy_s)
    assert child.rest(1) == expected


def test_who_never_was_ready_does_not_count_as_healthy(child):
    child, set_clock = child
    child.rest(1)
    child.start(os.environ)
    set_clock(1000.0)
    assert child.rest(1) == 0.4


def test_a_restart_is_due_when_its_delay_is_over(child):
    child, set_clock = child
    child.rest(1)
    assert not child.due()
    set_clock(0.19)
    assert not child.due()
    set_clock(0.2)
    assert child.due()


def test_an_end_is_named_by_its_code_or_signal():
    assert (how(69), how(-9), how(-11)) == ("69", "SIGKILL", "SIGSEGV")


def test_waiting_records_of_a_node_without_a_spool(node):
    assert supervisor.waiting_records(config.load(node.path)) == {}


def test_waiting_records_are_those_of_the_spool(node):
    from edged.alerts.spool import Caps, Spool

    loaded = config.load(node.path)
    with closing(Spool(str(loaded.spool), Caps(10, 1 << 20, 60))):
        assert supervisor.waiting_records(loaded) == {}
