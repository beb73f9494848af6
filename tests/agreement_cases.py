"""Payloads of agreements that nobody may take: one thing of a valid one is broken in each. For both readers."""

import cbor2

UINT32 = (1 << 32) - 1


def fields(payload, **changes):
    """The payload with some of its values changed, in canonical form."""
    return cbor2.dumps(dict(cbor2.loads(payload), **changes), canonical=True)


def without(payload, name):
    return cbor2.dumps({key: value for key, value in cbor2.loads(payload).items() if key != name}, canonical=True)


def malformed(payload):
    """{what: (payload, what Python says of it)}"""
    return {
        "nothing": (b"", "not CBOR"),
        "cut off": (payload[:-1], "not CBOR"),
        "a list": (cbor2.dumps([1]), "not a canonical CBOR map"),
        "a tail": (payload + b"\0", "not a canonical CBOR map"),
        "another order": (cbor2.dumps(dict(reversed(list(cbor2.loads(payload).items())))), "not a canonical CBOR map"),
        "a longer number": (payload.replace(b"\x61v\x01", b"\x61v\x18\x01"), "not a canonical CBOR map"),
        "an unknown field": (fields(payload, more=1), "missing or unknown: more"),
        "a field less": (without(payload, "status"), "missing or unknown: status"),
        "a field renamed": (fields(cbor2.dumps(dict(cbor2.loads(without(payload, "number")), numbes=1))),
                            "missing or unknown: number, numbes"),
    }


def out_of_range(payload):
    """[(payload, what Python says of it)]; the valid one has two rules and two recipients."""
    def row(name, index, at, value):
        """A list in the payload, one of whose rows has another value at a place."""
        rows = cbor2.loads(payload)[name]
        rows[index][at] = value
        return {name: rows}

    def seen(*bits, **changes):
        """Of both rules, by the first recipient."""
        return dict(row("recipients", 0, 3, list(bits)), **changes)

    cases = [
        (dict(v=0), "v is 0"), (dict(v=2), "v is 2"), (dict(v=True), "v is True"),
        (dict(mo=bytes(31)), "mo is"), (dict(qdo="q" * 32), "qdo is"), (dict(qdo=bytes(33)), "qdo is"),
        (dict(body=0), "body is 0"), (dict(body=511), "body is 511"), (dict(body=513), "multiple of 512"),
        (dict(body=4096), "body is 4096"), (dict(body=512.0), "body is 512.0"),
        ({"from": -1}, "from is -1"), ({"from": 2000, "until": 2000}, "2000 until 2000 is no time at all"),
        ({"from": 2000, "until": 1999}, "2000 until 1999 is no time at all"), ({"until": UINT32 + 1}, "until is"),
        (dict(model=["st-gcn", 3]), "must be a list of 3"), (dict(model=["", 3, b"m" * 16]), "model: id is ''"),
        (dict(model=["i" * 65, 3, b"m" * 16]), "model: id is"), (dict(model=["i", -1, b"m" * 16]), "version is -1"),
        (dict(model=["i", 3, b"m" * 15]), "key_id is"),
        (dict(rules=[["label %d" % i, 1, 0, 0, 0] for i in range(9)]), "must be a list of 0..8"),
        (dict(rules={}), "rules is"),
        (dict(rules=[["one", 1, 0, 0, 0]] * 2), "one label stands twice"),
        (dict(rules=[["falling", 1, 0, 0]] * 2), "is not a list of label"),
        (dict(rules=["falling"] * 2), "is not a list of"),
        (row("rules", 0, 0, "l" * 33), "label is"), (row("rules", 0, 0, ""), "label is ''"),
        (row("rules", 0, 0, b"falling"), "label is"), (row("rules", 0, 1, 0), "threshold is 0"),
        (row("rules", 0, 1, 65537), "threshold is 65537"), (row("rules", 0, 2, 86401), "cool_down is"),
        (row("rules", 1, 3, 1440), "first is 1440"), (row("rules", 1, 4, 1440), "end is 1440"),
        (dict(number=-1), "number is -1"), (dict(number=UINT32 + 1), "number is"),
        (dict(status=1), "status is 1"), (dict(status=3), "status is 3"),
        (dict(beacons=[30]), "must be a list of 2"), (dict(beacons=[0, 90]), "period is 0"),
        (dict(beacons=[86401, 86401]), "period is 86401"), (dict(beacons=[30, 29]), "limit is 29"),
        (dict(beacons=[30, 1 << 31]), "limit is"),
        (dict(data_key=bytes(15)), "data_key is"), (dict(placements=0), "placements is 0"),
        (dict(placements=8), "placements is 8"),
        (dict(recipients=[]), "must be a list of 1..4"),
        (dict(recipients=[[bytes([i]) * 16, b"a" * 16, 0, [0, 0]] for i in range(5)]), "must be a list of 1..4"),
        (dict(recipients=[[b"1" * 16, b"a" * 16, 0]]), "is not a list of rcpt"),
        (row("recipients", 1, 0, cbor2.loads(payload)["recipients"][0][0]), "one stands twice"),
        (row("recipients", 0, 0, b"1"), "rcpt is"),
        (row("recipients", 0, 1, b"a" * 17), "alert_key is"), (row("recipients", 0, 2, 2), "sees is 2"),
        (row("recipients", 0, 3, [3]), "must be a list of 2"), (row("recipients", 0, 3, [3, 4]), "rules is"),
        (row("recipients", 0, 3, [3, 2]), "rules is"),  # a score without its label
        (row("recipients", 0, 3, [3, True]), "rules is"),
        (seen(3, 8, body=49152), "rules is"), (seen(4, 7, body=49152), "rules is"),  # skeletons without their label
        (seen(7, 6, body=49152), "rules is"), (seen(3, 4, body=49152), "rules is"),
        (seen(3, 7), "must be 49152 where somebody sees skeletons"), (seen(5, 0), "must be 49152 where"),
        (seen(7, 7, body=3584), "must be 49152 where"), (seen(0, 5, body=49153), "body is 49153"),
        (seen(0, 5, body=48640), "must be 49152 where"), (seen(0, 5, body=0), "body is 0"),
        (dict(body=49152), "must be at most 3584 where nobody"), (seen(3, 3, body=49152), "must be at most 3584 where"),
        (dict(body=49664), "body is 49664"),
        (dict(score_bits=17), "score_bits is 17"), (dict(clips_per_hour=0), "clips_per_hour is 0"),
        (dict(clips_per_hour=1000001), "clips_per_hour is"),
    ]
    return [(fields(payload, **changes), reason) for changes, reason in cases]


def misshapen(signed, payload):
    """{what: envelope}: the right payload in another COSE form."""
    middle = len(signed) - 72  # where the second signature begins
    return {
        "nothing": b"", "head": signed[:5], "cut off": signed[:-1], "a tail": signed + b"\0",
        "one signature": signed[:middle], "three signatures": signed + signed[middle:], "no tag": signed[2:],
        "another tag": b"\xd2" + signed[2:],
        "announces one signature": signed.replace(b"\x82\x83\x43", b"\x81\x83\x43"),
        "payload alone": payload, "a header of the body": signed.replace(b"\x84\x40\xa0", b"\x84\x40\xa1\x01\x27"),
        "a longer length": signed[:5] + b"\x5a\0\0" + signed[6:],
        "text": signed[:5] + cbor2.dumps(payload.decode("latin-1")) + signed[8 + len(payload):],
    }
