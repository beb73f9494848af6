"""Where the fuzzers begin: inputs made of valid flows, in the forms that tests/c/fuzz_*.c read.

    seeds.py VECTORS MESSAGE_TEST FOLDER     writes FOLDER/fuzz_NAME/...
"""

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Dict, Tuple

import cbor2

from c import vectors
from edged.enclave import wire

# enum fuzz_operation of fuzz_input.h, and its enum fuzz_city
FRAMED, DUE, PATCHED, RESIZED, STYLE, FAULT, DISCONNECT, CITY = range(1, 9)
AGREES, BEACON, LATE, CLOCK, CLAIM, EXERCISE, CONFIRM, CLOSE, RESTORE, RESTART, SUCCEED = range(11)
RESTART_KEY = 254  # of fuzz_key.c
STARTS = 6
EVALUATE_AFTER = 128


def _framed(cmd: int, body: bytes, handle: bool = False) -> bytes:
    return struct.pack("<BBBH", FRAMED, cmd, handle, len(body)) + body


def _city(*acts: Tuple[int, int]) -> bytes:
    return b"".join(bytes((CITY,) + act) for act in acts)


def _eval_seeds() -> Dict[str, bytes]:
    """Honest flows from every start in every style, and one odd thing in the middle of each."""
    seeds = {}
    odd = {
        "honest": b"",
        "patched": struct.pack("<BBHB", PATCHED, 0, 24, 1),
        "resized": struct.pack("<Bb", RESIZED, -4),
        "key away": struct.pack("<BBB", FAULT, 1, 1),
        "no memory": struct.pack("<BBB", FAULT, 3, 1),
        "no stream": struct.pack("<BBB", FAULT, 4, 3),
        "no seal": struct.pack("<BBB", FAULT, 5, 1),
        "restyled": struct.pack("<BB", STYLE, 0x1C),
        "gone": struct.pack("<B", DISCONNECT),
        "info": _framed(wire.EvalCommand.INFO, b""),
        "session": _framed(wire.EvalCommand.SESSION_OPEN, wire.SessionOpen(0, b"c" * 32, b"n" * 32).pack()),
        "window": _framed(wire.EvalCommand.WINDOW, wire.Window(1 << 20).pack(), True),
        "abort": _framed(wire.EvalCommand.CLIP_ABORT, wire.Index(0).pack()),
        "record": _framed(wire.EvalCommand.RECORD, wire.RecordAsk(0, 0).pack()),
        "close": _framed(wire.EvalCommand.SESSION_CLOSE, wire.Index(0).pack()),
        "unload": _framed(wire.EvalCommand.UNLOAD, b""),
        "prepare": _framed(wire.EvalCommand.PREPARE_OPEN, wire.PrepareOpen(1).pack()),
        "drop": _framed(wire.EvalCommand.PREPARE_DROP, wire.Invocation(1).pack()),
        "beacons": _city((BEACON, 0), (LATE, 1), (CLOCK, 9), (BEACON, 1), (LATE, 200)),
        "agreements": _city((AGREES, 1), (AGREES, 2), (AGREES, 3), (BEACON, 3)),
        "claims": _city(*((kind, step) for step in range(0, 250, 10) for kind in (CLAIM, EXERCISE))),
        "no first seal": struct.pack("<BBB", FAULT, 5, 1) + _city((AGREES, 1), (EXERCISE, 4)),
        "no second seal": struct.pack("<BBB", FAULT, 5, 2) + _city((AGREES, 0), (AGREES, 1), (AGREES, 0)),
        "closed": _city((CONFIRM, 0), (CLOSE, 0), (AGREES, 0), (CONFIRM, 1)),
        "killed": _city((CONFIRM, 1), (RESTART, 0), (RESTORE, 0), (AGREES, 0)),
        "twice": _city((CONFIRM, 0), (RESTORE, 0), (RESTART, 0), (CONFIRM, 0), (RESTORE, 0)),
        "followed": _city((AGREES, 2), (SUCCEED, 4), (SUCCEED, 4), (AGREES, 0), (BEACON, 0), (CONFIRM, 0), (AGREES, 0)),
        "no last seal": struct.pack("<BBB", FAULT, 5, 3) + _city((AGREES, 2), (SUCCEED, 4), (SUCCEED, 4)),
        "later": struct.pack("<BBB", FAULT, 6, 13) + _city((BEACON, 1), (EXERCISE, 0)),
    }
    for start in range(STARTS):
        for style in range(64):
            if style >> 4 == 3:
                continue
            name = list(odd)[(start * 64 + style) % len(odd)]
            seeds["{}-{}-{}".format(start, style, name.replace(" ", "-"))] = (
                bytes([start, style | EVALUATE_AFTER]) + bytes([DUE, 2]) + odd[name] + bytes([DUE, 63]))
    return seeds


def _key_seeds() -> Dict[str, bytes]:
    put = wire.SlotPut(2, 1, 32, b"i" * 16, b"k" * 32, b"v" * 32).pack()
    messages = [(2, b""), (4, b""), (6, put), (28, b""), (28, b"\0"), (8, wire.Index(2).pack()), (2, b"")]
    flow = b"".join(struct.pack("<BH", cmd, len(body)) + body for cmd, body in messages)
    identity = [(10, b""), (14, b"c" * 32)] + [(16, b"n" * size) for size in (15, 16, 64, 65)] + [(10, b""), (2, b"")]
    asked = b"".join(struct.pack("<BH", cmd, len(body)) + body for cmd, body in identity)
    again = b"".join(struct.pack("<BHB", RESTART_KEY, at, flip) for at, flip in (
        (0, 1), (4, 3), (8, 1), (40, 1), (2527, 128), (0, 0))) + asked
    raw = wire.Header.codec.pack(1, 2, 0, 7, 0, 0)
    past = [(6, wire.SlotPut(slot, 1, 32, b"i" * 16, b"k" * 32, b"v" * 32).pack()) for slot in (15, 16, 17)]
    past += [(6, wire.SlotPut(1, 3, 16, b"i" * 16, b"k" * size + bytes(32 - size), verifier).pack())
             for size, verifier in ((16, b"v" * 32), (17, b"v" * 32), (16, bytes(32)))]
    past += [(8, wire.Index(slot).pack()) for slot in (15, 16, 17)]
    ends = b"".join(struct.pack("<BH", cmd, len(body)) + body for cmd, body in past)
    return {"flow": flow, "ends": ends, "raw": struct.pack("<BH", 255, len(raw)) + raw,
            "identity": asked + again, "none": again}


def _grant_seeds() -> Dict[str, bytes]:
    """Operations of fuzz_grant.c behind its first byte."""
    def grant(slot: int, kind: int = 1, party: int = 1, number: int = 1, wrong: int = 0) -> bytes:
        return bytes([0, slot, kind, party, number, wrong])

    def clear(slot: int) -> bytes:
        return bytes([2, slot])

    def restart(which: int, at: int = 0, flip: int = 0) -> bytes:
        return struct.pack("<BBHB", 5, which, at, flip)

    def floor(party: int, *numbers: Tuple[int, int], wrong: int = 0) -> bytes:
        slots = sum(1 << slot for slot, _ in numbers)
        return struct.pack("<BBBBBBH", 8, party, wrong, 3, 4, 5, slots) + bytes(number - 1 for _, number in numbers)

    state, commit = b"\3", b"\4\0"
    header = cbor2.dumps({"form": "edged grant 1", "kind": 1, "slot": 3, "device": b"d" * 32, "key_id": b"k" * 16,
                          "number": 300, "verifier": b"v" * 32, "agreement": b"a" * 32}, canonical=True)
    payload = cbor2.dumps([header, b"w" * 256])
    whole = b"\xd2" + cbor2.dumps([b"\xa1\x01\x27", {}, payload, b"s" * 64])
    drawn = state + commit
    taken = drawn + b"".join(grant(slot, kind, party) + commit
                             for slot, kind, party in ((0, 1, 1), (1, 2, 2), (2, 3, 2)))
    seeds = {
        "taken": taken + state, "uncommitted": drawn + grant(0) + grant(1) + b"\4\1" + state + commit + grant(1),
        "renewed": taken + grant(0, number=2) + commit + grant(0, number=2) + grant(0, number=1) + restart(8 * 5),
        "cleared": taken + clear(0) + commit + grant(0) + grant(0, party=2) + commit + clear(0) + commit + grant(0),
        "another": taken + grant(0, party=3, number=9), "short": drawn + grant(2, 3, 2, 1, 1) + grant(1, 2, 2, 1, 1),
        "lengths": drawn + b"".join(grant(2, 3, 2, 1, 4 * size + 2) for size in range(0, 63)),
        "wrong": drawn + b"".join(grant(3, 1, 1, 1, wrong) for wrong in (255, 251, 247, 243, 239, 235, 231)),
        "ends": drawn + b"".join(grant(slot, kind, party, number) for slot in (15, 16) for kind in (0, 1, 3, 4)
                                 for party in (0, 1, 64) for number in (0, 255)),
        "full": drawn + b"".join(grant(3, 1, party) + commit + clear(3) + commit for party in range(1, 52)),
        "older": taken + b"".join(restart(8 * index) for index in range(5)),
        "altered": taken + b"".join(restart(8 * 4, at, 1) for at in (0, 4, 8, 40, 48, 3999)),
        "branches": drawn + grant(0) + restart(0) + grant(1) + commit + restart(8) + restart(16) + grant(0, number=5),
        "begun anew": taken + restart(255) + grant(0) + state + commit + grant(0) + restart(254) + grant(0) + state,
        "forgotten": taken + restart(7) + grant(5, number=9) + state + commit,
        "in clear": drawn + b"\7\0\1" + grant(0, party=3) + grant(0, party=2) + commit + b"\7\0\1" + clear(0),
    }
    both = floor(1, (0, 1)) + commit + floor(2, (1, 1), (2, 1)) + commit
    seeds.update({
        "vouched": taken + both + restart(8 * 6) + both + state, "one alone": taken + floor(1, (0, 1)) + commit,
        "withdrawn": taken + both + floor(1, (0, 2)) + commit + grant(0) + grant(0, number=2) + commit,
        "not listed": taken + both + floor(2, (1, 1)) + commit + floor(2) + commit,
        "of no slot": taken + floor(1, (0, 1), (9, 7)) + commit + clear(0) + commit + floor(1, (0, 9)) + floor(3),
        "emptied": taken + grant(3) + commit + clear(0) + commit + floor(1, (0, 9)) + commit + grant(0, number=8),
        "wrong floors": taken + b"".join(floor(1, (0, 1), (1, 1), wrong=wrong) for wrong in range(247, 256)) + floor(0),
        "many floors": drawn + b"".join(grant(3, 1, party) + commit + floor(party, (3, 1)) + commit + clear(3) + commit
                                        for party in range(1, 11)),
        "late grant": taken + both + grant(0, number=2) + commit + floor(1, (0, 2)) + floor(1, (0, 2)) + commit,
    })
    for which in range(3):
        for when in range(4):
            fault = bytes([6, which, when])
            seeds["fault-{}-{}".format(which, when)] = (
                fault + state + drawn + fault + grant(0) + grant(0) + fault + commit + commit + fault + floor(1, (0, 1))
                + commit + fault + clear(0) + commit)
    for name in list(seeds):
        seeds[name + "-locked"] = b"\1" + seeds[name]
        seeds[name] = b"\0" + seeds[name]
    said = cbor2.dumps({"form": "edged floor 1", "time": 1 << 33, "model": 2, "start": b"s" * 32, "device": b"d" * 32,
                        "grants": [[0, 9], [15, 300]], "verifier": b"v" + bytes(31), "agreement": 3},
                       canonical=True)
    seeds["said"] = b"\0\x09" + struct.pack("<H", 2 * len(said)) + said
    seeds["payload"] = b"\0\1" + struct.pack("<H", 2 * len(payload)) + payload
    seeds["whole"] = b"\0\1" + struct.pack("<H", 2 * len(whole) + 1) + whole
    return seeds


def _link_seeds() -> Dict[str, bytes]:
    """enum of fuzz_link.c: 0 raw, 1 framed, 2 hello { u16 at, u8 flip }, 3 derive, 4 close, 5 confirm { u8, u8 }."""
    confirm = b"\5\0\0"
    hello = struct.pack("<BHB", 2, 0, 0) + confirm

    def derive(purpose: int, context: int = 32) -> bytes:
        kind = (0, 1, 2, 3, 3, 1, 2)[purpose]
        context = 0 if purpose in (1, 5, 6) else context
        return struct.pack("<BBBBB", 3, kind, purpose, context, 0) + bytes(min(context, 64)) + bytes(32)

    flow = hello + b"".join(derive(purpose) for purpose in (1, 2, 3, 4, 5, 6, 0))
    body = wire.Derive(1, 1, 0, bytes(32), bytes(64)).pack()
    return {"flow": flow, "again": flow + hello + flow, "closed": hello + b"\4" + derive(1),
            "ends": hello + b"".join(derive(2, context) for context in (1, 64, 65)),
            "framed": hello + struct.pack("<BBH", 1, 34, len(body)) + body,
            "wrong": struct.pack("<BHB", 2, 500, 1) + confirm + flow, "twice": hello + confirm + derive(1),
            "unconfirmed": hello[:-3] + derive(1) + b"\5\3\1" + derive(1) + confirm + derive(1)}


def _agreement_seeds(items: Dict[str, bytes]) -> Dict[str, bytes]:
    """First byte as in fuzz_agreement.c: 0 signed, 1 payload, 2 numbers, 3 a state's plaintext."""
    seeds = {}
    for number in range(5):
        signed = items["agreement/{}".format(number)][wire.AgreementPut.size():]
        payload = cbor2.loads(signed[5:])
        more = bytes((number + 1) * i % 256 for i in range(200))
        seeds["signed-{}".format(number)] = b"\0" + signed
        seeds["payload-{}".format(number)] = b"\1" + payload
        seeds["numbers-{}".format(number)] = b"\2" + more
        summary = struct.pack("<QII", 9, number % 2, 8 * number) + more * 6
        seeds["state-{}".format(number)] = bytes([3, 7, number % 2]) + summary
    return seeds


def _package_seeds(items: Dict[str, bytes]) -> Dict[str, bytes]:
    manifest, stream = items["small/manifest"], items["small/stream"]
    seeds = {"small": b"\0" + struct.pack("<H", len(manifest)) + manifest + stream}
    for index in range(64):  # odd first byte: numbers of a table
        seeds["made-{}".format(index)] = b"\1" + bytes((17 * index + 31 * i * (index + 1)) % 251 for i in range(96))
    return seeds


def _cbor_seeds(items: Dict[str, bytes]) -> Dict[str, bytes]:
    values = [0, 23, 24, 255, 256, 65535, 65536, 1 << 32, (1 << 64) - 1, b"", b"x" * 24, "x", "\u00e9\u20ac\U0001f600"]
    reads = {int: (8, 0), bytes: (0x31, 0xFC), str: (0x32, 0xFC)}
    seeds = {"manifest": bytes([1, 4, 16, 2, 4, 2, 4, 2, 4]) + items["small/manifest"]}
    plan = b"".join(bytes(reads[type(value)]) for value in values)
    seeds["values"] = bytes([len(values)]) + plan + b"".join(cbor2.dumps(value) for value in values)
    return seeds


def main() -> None:
    path, program, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    items = vectors.read(path)
    groups = {"fuzz_eval": _eval_seeds(), "fuzz_key": _key_seeds(), "fuzz_grant": _grant_seeds(),
              "fuzz_link": _link_seeds(),
              "fuzz_agreement": _agreement_seeds(items),
              "fuzz_package": _package_seeds(items), "fuzz_cbor": _cbor_seeds(items)}
    for group, seeds in groups.items():
        os.makedirs(str(folder / group), exist_ok=True)
        for name, data in seeds.items():
            (folder / group / name).write_bytes(data)
    # The flows of message_test, every message with all its bytes.
    subprocess.run([program, str(path), str(folder / "fuzz_eval")], check=True)


if __name__ == "__main__":
    main()
