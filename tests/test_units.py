"""The systemd units: what they must say, what the oldest systemd knows, and what systemd itself says of them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edged import cli, config, edgectl
from edged.errors import ConfigError, UsageError
from edged.keyserver.config import DAY_S, HOUR_S

FOLDER = Path(__file__).resolve().parent.parent / "systemd"
SERVICES = ["edged-enclave.service", "edged-bridge.service", "edged-outbox.service", "edged-camera@.service"]
GRANTS = "edged-grants@.service"  # asks once after a start; the others serve
LASTING = SERVICES + [GRANTS]
REPORT, TIMER = "edged-report@.service", "edged-report@.timer"
UNITS = LASTING + [REPORT]
INSTANCES = {"edged-camera@.service": "gate", GRANTS: "owner", REPORT: "owner", TIMER: "owner"}

# All that the units may say: known to systemd 245 (JetPack 5). Whoever adds a key looks up since when it is known.
KNOWN = {
    "Unit": {"Description", "PartOf", "After", "Before", "Wants", "StartLimitIntervalSec", "ConditionPathExists",
             "DefaultDependencies", "Conflicts"},
    "Install": {"WantedBy"},
    "Timer": {"OnActiveSec", "OnUnitActiveSec", "RandomizedDelaySec"},
    "Service": {
        "Type", "NotifyAccess", "ExecStart", "ExecReload", "KillMode", "Restart", "RestartSec",
        "RestartPreventExitStatus", "WatchdogSec", "TimeoutStartSec", "TimeoutStopSec", "User", "Group",
        "SupplementaryGroups", "StateDirectory", "StateDirectoryMode", "EnvironmentFile", "RemainAfterExit",
        "ReadWritePaths", "InaccessiblePaths", "UMask", "Environment", "PrivateNetwork", "PrivateDevices",
        "PrivateUsers", "PrivateTmp", "MemoryDenyWriteExecute", "RestrictAddressFamilies", "IPAddressDeny",
        "DevicePolicy", "DeviceAllow",
        "SystemCallFilter", "SystemCallArchitectures", "SystemCallErrorNumber", "CapabilityBoundingSet",
        "AmbientCapabilities", "NoNewPrivileges", "LockPersonality", "ProtectSystem", "ProtectHome", "ProtectClock",
        "ProtectHostname", "ProtectControlGroups", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
        "RemoveIPC", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"},
}
SINCE = {247: {"ProtectProc"}, 254: {"RestartSec", "RestartSteps", "RestartMaxDelaySec"}}

# systemd-analyze security: 0 is best, 10 worst. Most services of a distribution have 9.6.
EXPOSURE = {"edged-enclave.service": 1.0, "edged-bridge.service": 1.2, "edged-outbox.service": 1.7,
            "edged-camera@.service": 2.0, GRANTS: 2.0, REPORT: 2.0}


def settings(path):
    """section -> key -> values, in order"""
    found, section = {}, None
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = found.setdefault(line[1:-1], {})
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            section.setdefault(key, []).append(value)
    return found


def service(name):
    return settings(FOLDER / name)["Service"]


def last(name, key):
    return service(name)[key][-1]


@pytest.mark.parametrize("name", UNITS + [TIMER, "edged.target"])
def test_a_unit_says_nothing_that_systemd_245_does_not_know(name):
    for section, keys in settings(FOLDER / name).items():
        assert sorted(set(keys) - KNOWN[section]) == []


def test_all_units_are_looked_at_here():
    assert sorted(path.name for path in FOLDER.glob("*.service")) == sorted(UNITS)
    assert [path.name for path in FOLDER.glob("*.timer")] == [TIMER]


@pytest.mark.parametrize("since", sorted(SINCE))
def test_what_newer_systemds_know_is_in_a_folder_of_their_version(since):
    files = [path for path in (FOLDER / "since-{}".format(since)).rglob("*") if path.is_file()]
    assert len(files) == 1
    path, = files
    assert path.parent.name == "edged-.service.d" and path.suffix == ".conf"
    assert settings(path).keys() == {"Service"} and set(settings(path)["Service"]) == SINCE[since]


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("key, value", [("Type", "notify"), ("KillMode", "mixed"), ("NotifyAccess", "main"),
                                        ("WatchdogSec", "60")])
def test_every_process_that_serves_says(name, key, value):
    assert service(name)[key] == [value]


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("key, value", [
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"), ("ProtectHome", "yes"), ("PrivateTmp", "yes"), ("PrivateUsers", "yes"),
    ("CapabilityBoundingSet", ""), ("AmbientCapabilities", ""), ("RestrictNamespaces", "yes"),
    ("SystemCallArchitectures", "native"), ("Group", "edged"), ("LockPersonality", "yes"), ("RestrictSUIDSGID", "yes"),
    ("ProtectKernelModules", "yes"), ("ProtectKernelTunables", "yes"), ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"), ("ProtectClock", "yes")])
def test_every_service_says(name, key, value):
    assert service(name)[key] == [value]


@pytest.mark.parametrize("name", LASTING)
def test_a_bad_configuration_is_not_tried_again_and_all_else_is_for_ever(name):
    assert service(name)["Restart"] == ["on-failure"]
    codes = {int(code) for code in last(name, "RestartPreventExitStatus").split()}
    assert codes == {ConfigError.exit_code, UsageError.exit_code}
    assert settings(FOLDER / name)["Unit"]["StartLimitIntervalSec"] == ["0"]


@pytest.mark.parametrize("name", UNITS)
def test_system_calls_are_those_of_a_service_without_the_privileged(name):
    allowed, denied = service(name)["SystemCallFilter"]
    assert allowed.split()[0] == "@system-service" and denied == "~@privileged", "and @resources, which ZeroMQ needs"


@pytest.mark.parametrize("name", ["edged-bridge.service", "edged-enclave.service"])
def test_the_bridge_and_the_enclave_have_no_network(name):
    assert last(name, "PrivateNetwork") == "yes" and last(name, "RestrictAddressFamilies") == "AF_UNIX"


@pytest.mark.parametrize("name", ["edged-outbox.service", "edged-camera@.service", GRANTS, REPORT])
def test_the_others_have_ip_and_nothing_else(name):
    assert last(name, "RestrictAddressFamilies") == "AF_UNIX AF_INET AF_INET6"


@pytest.mark.parametrize("name", ["edged-enclave.service", "edged-outbox.service"])
def test_who_needs_no_device_has_none_and_no_memory_to_write_and_run(name):
    assert last(name, "PrivateDevices") == "yes" and last(name, "MemoryDenyWriteExecute") == "yes"


@pytest.mark.parametrize("name, devices", [
    ("edged-camera@.service", {"char-video4linux", "char-nvhost*", "char-nvidia*", "/dev/nvmap"}),
    (GRANTS, {"/dev/trusty-ipc-dev0"}),
    (REPORT, {"/dev/trusty-ipc-dev0"}),
    ("edged-bridge.service", {"/dev/trusty-ipc-dev0", "char-dma_heap", "char-nvhost*", "char-nvidia*", "/dev/nvmap"})])
def test_who_needs_devices_has_those_alone(name, devices):
    assert last(name, "DevicePolicy") == "closed"
    assert {value.split()[0] for value in service(name)["DeviceAllow"]} == devices
    assert all(value.split()[1] == "rw" for value in service(name)["DeviceAllow"])


def test_only_the_camera_reads_its_keys_and_only_bridge_and_outbox_the_spool():
    users = {name: last(name, "User") for name in UNITS}
    assert users == {"edged-enclave.service": "edged-enclave", "edged-bridge.service": "edged", GRANTS: "edged",
                     REPORT: "edged", "edged-outbox.service": "edged", "edged-camera@.service": "edged-camera"}
    for name in UNITS:
        hidden = set(last(name, "InaccessiblePaths").split())
        if "camera" not in name:
            assert "-/etc/edged/cameras" in hidden
        if users[name] != "edged":
            assert "-/var/lib/edged" in hidden
        if "outbox" not in name and "enclave" not in name:
            assert "-/etc/edged/outbox" in hidden
        if "enclave" not in name:
            assert "-/etc/edged/slots" in hidden


def test_each_key_is_open_to_its_user_alone_and_its_folder_is_roots():
    """systemd-tmpfiles refuses to touch a file in a folder of another user than root."""
    rows = [line.split() for line in (FOLDER / "edged.tmpfiles.conf").read_text().splitlines()
            if not line.startswith("#")]
    by_path = {row[1]: row for row in rows}
    for folder, user in (("cameras", "edged-camera"), ("outbox", "edged"), ("slots", "edged-enclave")):
        assert by_path["/etc/edged/" + folder] == ["d", "/etc/edged/" + folder, "0750", "root", "edged", "-"]
        assert by_path["/etc/edged/{}/*".format(folder)][2:4] == ["0600", user]
    for kind, path, _, _, group, _ in rows:
        assert group == "edged"
        if kind == "z":
            assert by_path[str(Path(path).parent)][3] == "root"
    users = {row[1] for row in (line.split() for line in (FOLDER / "edged.sysusers.conf").read_text().splitlines())
             if row[0] == "u"}
    assert {row[3] for row in rows} == users | {"root"}
    assert {last(name, "User") for name in UNITS} == users


def test_the_paths_of_the_units_are_those_of_the_example():
    loaded = config.load(str(FOLDER / "edged.toml.example"))
    root = str(FOLDER)
    assert str(loaded.node.run) == "/run/edged"
    assert str(loaded.node.state) == "/var/lib/" + last("edged-bridge.service", "StateDirectory")
    assert loaded.enclave.at == "/var/lib/" + last("edged-enclave.service", "StateDirectory")
    assert [str(path)[len(root):].split("/")[1] for path in (
        loaded.cameras[0].key, loaded.outbox.key, loaded.enclave.keys)] == ["cameras", "outbox", "slots"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_command_of_edged(name, capsys):
    program, *arguments = last(name, "ExecStart").replace("%i", "gate").split()
    assert program == "/opt/edged/bin/edged"
    at = arguments.index("--config")
    assert arguments[at + 1] == config.DEFAULT_PATH
    arguments[at + 1] = "/nowhere/edged.toml"
    assert cli.main(arguments) == 66
    assert capsys.readouterr().err == "edged: /nowhere/edged.toml: No such file or directory\n"


@pytest.mark.parametrize("name", ["edged-outbox.service", "edged-camera@.service", GRANTS, REPORT])
def test_who_works_without_keys_or_brings_them_does_not_wait_for_the_bridge(name):
    """It is ready once its keys are unlocked, which may be minutes after each boot, or never."""
    unit = settings(FOLDER / name)["Unit"]
    assert "edged-bridge.service" not in " ".join(unit["After"] + unit.get("Wants", [])).split()
    bridge = settings(FOLDER / "edged-bridge.service")["Unit"]
    assert name not in " ".join(bridge.get("Before", [])).split()


def test_the_grants_unit_asks_a_key_server_with_what_its_file_says(capsys):
    command = last(GRANTS, "ExecStart").replace("${SERVER}", "keys.example.org:7444").replace("${CA}", "/nowhere/ca")
    program, *arguments = command.split()
    assert program == "/opt/edged/bin/edgectl" and service(GRANTS)["Type"] == ["oneshot"]
    text = (FOLDER / GRANTS).read_text(encoding="ascii")
    assert last(GRANTS, "EnvironmentFile") == "/etc/edged/grants-%i.conf" and "grants-%i.conf has" in text
    assert {"#   SERVER=keys.example.org:7444", "#   CA=/etc/edged/grants-owner.pem"} <= set(text.splitlines())
    at = arguments.index("--config")
    assert arguments[at + 1] == config.DEFAULT_PATH
    arguments[at + 1] = "/nowhere/edged.toml"
    assert edgectl.main(arguments) == 66
    assert capsys.readouterr().err == "edgectl: /nowhere/edged.toml: No such file or directory\n"


def test_the_report_unit_asks_with_the_same_file_and_its_timer_alone_has_it_ask_again(capsys):
    assert service(REPORT)["EnvironmentFile"] == service(GRANTS)["EnvironmentFile"]
    assert last(REPORT, "ExecStart") == last(GRANTS, "ExecStart").replace("fetch-grants", "report")
    arguments = last(REPORT, "ExecStart").replace(config.DEFAULT_PATH, "/nowhere/edged.toml").split()[1:]
    assert edgectl.main(arguments) == 66
    assert capsys.readouterr().err == "edgectl: /nowhere/edged.toml: No such file or directory\n"
    # At the end it is known again: a oneshot that stays active would be started once.
    assert service(REPORT)["Restart"] == ["no"] and "RemainAfterExit" not in service(REPORT)


def test_a_node_reports_before_what_it_proved_expires_and_no_oftener_than_it_may():
    said = settings(FOLDER / TIMER)["Timer"]
    hours = {key: int(re.fullmatch(r"(\d+)h", values[0]).group(1)) for key, values in said.items()}
    longest = hours["OnUnitActiveSec"] + hours["RandomizedDelaySec"]
    assert hours["OnActiveSec"] + hours["RandomizedDelaySec"] <= longest
    assert 3 * longest * HOUR_S <= DAY_S, "two may fail"
    assert hours["RandomizedDelaySec"] >= 1, "a hundred nodes behind one address: of its requests a minute"


def test_a_reload_of_the_bridge_is_one_of_edgectl(capsys):
    program, *arguments = last("edged-bridge.service", "ExecReload").split()
    assert program == "/opt/edged/bin/edgectl" and arguments[-1] == config.DEFAULT_PATH
    assert edgectl.main(arguments[:-1] + ["/nowhere/edged.toml"]) == 66
    assert capsys.readouterr().err == "edgectl: /nowhere/edged.toml: No such file or directory\n"


def test_the_target_wants_all_that_a_node_has_one_of():
    wanted = settings(FOLDER / "edged.target")["Unit"]["Wants"][0].split()
    assert sorted(wanted) == sorted(name for name in SERVICES if "@" not in name)
    for name in UNITS + [TIMER]:
        assert settings(FOLDER / name)["Unit"]["PartOf"] == ["edged.target"]


# What systemd itself says.

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: install systemd")


def version():
    output = subprocess.run(["systemd-analyze", "--version"], stdout=subprocess.PIPE, universal_newlines=True).stdout
    return int(re.match(r"systemd (\d+)", output).group(1))


@pytest.fixture
def installed(tmp_path):
    """The units, with a program that is there, and the drop-ins that this systemd knows."""
    for name in UNITS + [TIMER, "edged.target"]:
        (tmp_path / name).write_text(re.sub(r"/opt/edged/bin/\w+", sys.executable, (FOLDER / name).read_text()))
    for since in SINCE:
        if version() >= since:
            for path in (FOLDER / "since-{}".format(since)).rglob("*.conf"):
                (tmp_path / path.parent.name).mkdir(exist_ok=True)
                shutil.copy(str(path), str(tmp_path / path.parent.name))
    return tmp_path


def verify(folder):
    units = [str(folder / name.replace("@", "@" + INSTANCES.get(name, ""))) for name in UNITS + [TIMER, "edged.target"]]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no"] + units, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, env={"PATH": "/usr/bin:/bin", "LANG": "C"})
    # Whether the machine's own units are in order is none of our business.
    return [line for line in done.stdout.splitlines() if "edged" in line], done.returncode


@analyze
def test_systemd_finds_nothing_wrong(installed):
    assert verify(installed) == ([], 0)


@analyze
def test_systemd_would_have_found_an_unknown_key(installed):
    """It says so, and ends with 0 all the same: so that any output is a failure."""
    path = installed / SERVICES[0]
    path.write_text(path.read_text().replace("[Service]\n", "[Service]\nProtectEverything=yes\n"))
    findings, _ = verify(installed)
    assert len(findings) == 1 and "ProtectEverything" in findings[0]


@analyze
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_little_exposed(installed, name):
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(installed / name)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if "unrecognized option" in done.stdout:
        pytest.skip("this systemd-analyze cannot look at files (before 250)")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout
    assert float(found.group(1)) <= EXPOSURE[name]


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs systemd-sysusers: install systemd")
def test_systemd_makes_the_users(tmp_path):
    (tmp_path / "etc").mkdir()
    done = subprocess.run(["systemd-sysusers", "--root", str(tmp_path), str(FOLDER / "edged.sysusers.conf")],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode and ("ermitted" in done.stdout or "denied" in done.stdout):
        pytest.skip("needs root: " + done.stdout.strip())
    assert done.returncode == 0, done.stdout
    names = {line.split(":")[0] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    assert {"edged", "edged-camera", "edged-enclave"} <= names
    groups = {line.split(":")[0]: line.split(":")[2] for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    users = {line.split(":")[0]: line.split(":")[3] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    assert users["edged"] == groups["edged"], "the group of all units"
