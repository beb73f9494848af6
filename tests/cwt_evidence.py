"""What an independent implementation of CBOR Web Tokens (cwt) makes of evidence: run by test_evidence_elsewhere.py in
an environment of its own, for cwt holds cbor2 and cryptography back. Nothing of edged is imported.

    FOLDER/evidence, device.pem, other.pem      decoded under the first key, and refused under the other: prints claims
    FOLDER/payload, private.pem, chain.N        signed, into FOLDER/signed
"""

import json
import sys
from pathlib import Path

import cwt


def key(path):
    return cwt.COSEKey.from_pem(path.read_bytes(), kid="device", alg="PS256")


def main(folder):
    encoded = (folder / "evidence").read_bytes()
    claims = dict(cwt.decode(encoded, key(folder / "device.pem")))
    try:
        cwt.decode(encoded, key(folder / "other.pem"))
        refused = False
    except cwt.VerifyError:
        refused = True
    chain = [path.read_bytes() for path in sorted(folder.glob("chain.*"))]
    (folder / "signed").write_bytes(cwt.COSE.new().encode_and_sign(
        (folder / "payload").read_bytes(), key(folder / "private.pem"), {1: -37}, {33: chain}))
    print(json.dumps({"nonce": claims[10].hex(), "ueid": claims[256].hex(), "refused": refused}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
