"""What the two applications are linked against, and what Linux still lets them do once they run.

The builds for Trusty, which have not run, are known by their objects: what these need from elsewhere is Trusty's API,
the C library's memory and strings, the compiler's arithmetic and one library, for cryptography. The host port's need
Linux, too, and say so here.
"""

import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest

from c import build
from edged import artifacts
from edged.enclave.host import EVAL_PROGRAM, KEY_PROGRAM, HostEnclave
from test_cross import COMPILERS

TRUSTY = build.ROOT / "trusty_ta"
PROGRAMS = {"key": KEY_PROGRAM, "eval": EVAL_PROGRAM}  # in the order of HostEnclave.pids
OWN_PORTS = {"key": 2, "eval": 1}  # that it listens at: for the normal world; the key application's for the other, too

# Of the C library: no file, no socket, no process, no output. Which of them a compiler does itself is its choice.
MEMORY = {"malloc", "calloc", "free", "memcmp", "memcpy", "memmove", "memset", "strcmp", "strlen"}
# Of the compiler: division on 32 bits, where the code's addresses are.
ARITHMETIC = {"__aeabi_uldivmod", "__aeabi_ldivmod", "__aeabi_uidiv", "__aeabi_uidivmod", "_GLOBAL_OFFSET_TABLE_"}
# Of Trusty: channels, keys of the device, randomness, time. (connect and wait by the names that port/include gives
# them, where a C library has its own.)
TRUSTY_API = {"tipc_hset_create", "tipc_add_service", "tipc_run_event_loop", "tipc_send1", "tipc_recv1",
              "trusty_connect", "trusty_wait", "close", "get_msg", "read_msg", "put_msg", "send_msg",
              "hwkey_open", "hwkey_derive", "hwkey_get_keyslot_data", "hwkey_close",
              "trusty_rng_secure_rand", "trusty_gettime"}
# Where the platform has them, as the ARM build of 64 bits assumes and that of 32 bits does not.
WINDOW = {"mmap", "munmap"}
STORAGE = {"storage_open_session", "storage_close_session", "storage_open_file", "storage_close_file",
           "storage_read", "storage_write", "storage_end_transaction"}
OF_TRUSTY = {("aarch64", "key"): TRUSTY_API | WINDOW | STORAGE, ("aarch64", "eval"): TRUSTY_API | WINDOW,
             ("arm", "key"): TRUSTY_API, ("arm", "eval"): TRUSTY_API}
CRYPTO_SOURCES = {"lib/crypto.o", "lib/rsa.o"}  # the thin header's two

# Of Linux, by the host port. Most of it before the filter is loaded, which then forbids it.
LIBRARIES = {"libc.so", "libcrypto.so", "libseccomp.so"}
LINUX = {"_exit", "abort", "__errno_location", "stderr", "stdout", "strerror", "strtol", "syscall",
         "accept4", "bind", "connect", "listen", "poll", "recvmsg", "sendmsg", "setsockopt", "socket",
         "chdir", "close", "fcntl", "flock", "fstat", "fsync", "link", "lseek", "lstat", "memfd_create", "open",
         "pread", "pwrite", "read", "readlink", "umask", "unlink", "write",
         "clock_gettime", "getrandom", "mmap", "mprotect", "munmap",
         "geteuid", "getpid", "getppid", "prctl", "setrlimit", "sigaction", "sigaltstack",
         "getcontext", "makecontext", "swapcontext"}
OF_LINUX = {"key": LINUX | {"fdatasync"}, "eval": LINUX}  # the monotonic store is the key application's
FILTER = {"seccomp_init", "seccomp_rule_add", "seccomp_rule_add_array", "seccomp_export_bpf", "seccomp_release"}
# Of any program of Linux, and of printing: what the compiler makes of fprintf() and snprintf().
START = {"__libc_start_main", "__cxa_finalize", "__gmon_start__", "_ITM_deregisterTMCloneTable",
         "_ITM_registerTMCloneTable", "__stack_chk_fail"}
PRINTING = {"fprintf", "snprintf", "fputc", "fwrite", "putc", "puts"}


def undefined(folder, objects):
    """{symbol that none of them has: those that need it}"""
    needed, defined = defaultdict(set), set()
    for name in objects:
        for line in build.run("nm", "-P", folder / name).splitlines():
            symbol, kind = line.split()[:2]
            if kind in "Uwv":
                needed[symbol].add(name)
            else:
                defined.add(symbol)
    return {symbol: by for symbol, by in needed.items() if symbol not in defined}


def objects_for_trusty(application):
    """As rules.mk names the sources: printed by make, paths from trusty_ta/ on, .o for .c."""
    rules = ("EDGED_APP := {0}\nEDGED_DIR := .\nLOCAL_DIR := ./port/trusty/{0}\ninclude port/trusty/rules-common.mk\n"
             "$(info $(EDGED_SRCS))\nall:\n\t@:\n").format(application)
    printed = build.run("sh", "-c", "cd \"$1\" && printf %s \"$2\" | make -s -f -", "sh", TRUSTY, rules)
    return [re.sub(r"\.c$", ".o", os.path.normpath(name)) for name in printed.split()]


@pytest.mark.skipif(bool(build.missing("make", "nm", *COMPILERS)), reason="needs make, nm and both ARM compilers")
@pytest.mark.parametrize("machine, application", list(OF_TRUSTY))
def test_an_application_for_trusty_needs_trusty_and_one_library(machine, application):
    folder = build.FOLDER / "cross-check"
    build.make("cross-check", "trusty_ta", BUILD=str(folder))
    objects = objects_for_trusty(application)
    assert CRYPTO_SOURCES < set(objects) and "{0}/{0}.o".format(application) in objects
    found = undefined(folder / "cross" / machine, objects)
    crypto = {symbol for symbol, by in found.items() if by <= CRYPTO_SOURCES} - MEMORY - ARITHMETIC
    assert found.keys() - crypto - MEMORY - ARITHMETIC == OF_TRUSTY[machine, application]
    assert "EVP_DecryptUpdate" in crypto
    # The core, that is all but the port, asks for nothing but memory, strings and what include/port.h promises.
    core = undefined(folder / "cross" / machine, [name for name in objects if not name.startswith("port/")])
    assert all(symbol.startswith("port_") for symbol in core.keys() - crypto - MEMORY - ARITHMETIC)


def image(application):
    """Of the build that the tests run; not of a sanitizer's, which is linked with its run-time."""
    path = artifacts.find(PROGRAMS[application])
    needed = {re.sub(r"\.[\d.]+$", "", name)
              for name in re.findall(r"\(NEEDED\).*\[(.*)\]", build.run("readelf", "-dW", path))}
    if any(name.startswith(("libasan", "libubsan")) for name in needed):
        pytest.skip("{}: a sanitizer build has its run-time and no filter".format(path))
    return path, needed


def dynamic(path, which):
    """Names in an image's table for the loader, without versions."""
    return {line.split("@")[0].split()[-1] for line in build.run("nm", "-D", which, path).splitlines()}


@pytest.mark.skipif(bool(build.missing("readelf", "nm", "ldd")), reason="needs readelf, nm and ldd")
@pytest.mark.parametrize("application", list(PROGRAMS))
def test_on_linux_it_needs_the_c_library_and_that_of_the_filter_too_and_of_linux_what_is_listed(application):
    path, needed = image(application)
    assert needed == LIBRARIES
    names = dynamic(path, "-u")
    library, = re.findall(r"=> (\S*/libcrypto\S+)", build.run("ldd", path))
    offered = dynamic(library, "--defined-only")
    assert "EVP_DecryptUpdate" in names & offered
    # With checks of the length where the compiler adds them, and C23's where the C library has both.
    plain = {re.sub(r"^__(?:isoc23_)?(\w+?)(?:_chk)?$", r"\1", name) if name not in START | LINUX else name
             for name in names - offered}
    assert plain - MEMORY - START - PRINTING == OF_LINUX[application] | FILTER


@pytest.fixture
def given_more(tmp_path):
    """Both applications, started by somebody who has a file open and leaves it to them."""
    (tmp_path / "left open").write_bytes(b"what its starter reads")
    with tempfile.TemporaryDirectory(prefix="edged-") as folder:  # as the fixture `enclave`: short enough for a socket
        wrapper = ("sh", "-c", "exec 7<\"$0\"; exec \"$@\"", str(tmp_path / "left open"))
        with HostEnclave(folder, wrapper) as running:
            yield running


@pytest.mark.skipif(bool(build.missing("readelf")), reason="needs readelf")
def test_a_running_application_is_under_a_filter_that_it_cannot_leave(enclave):
    for application, pid in zip(PROGRAMS, enclave.pids):
        image(application)
        status = dict(re.findall(r"^(\w+):\t(.*)$", Path("/proc/{}/status".format(pid)).read_text(), re.M))
        assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1"), application


def test_it_holds_its_sockets_its_lock_and_its_counter_open_and_nothing_that_it_was_started_with(given_more):
    for application, pid in zip(PROGRAMS, given_more.pids):
        try:
            held = [os.readlink(str(one)) for one in Path("/proc/{}/fd".format(pid)).iterdir() if int(one.name) > 2]
        except PermissionError:
            if os.geteuid() == 0:
                raise
            pytest.skip("needs root: nobody else may look at an application's descriptors; they were NOT checked")
        own = [name for name in held if not name.startswith("socket:")]
        kept = {"com.edged.{}.lock".format(application)} | ({"counter"} if application == "key" else set())
        assert sorted(own) == sorted(os.path.join(given_more.folder, name) for name in kept)
        assert len(held) - len(own) == OWN_PORTS[application]
