#!/usr/bin/env python3
"""Turn a Trusty manifest.json into the C header that the host port is built with.

    manifest.py MANIFEST.json HEADER.h

Trusty's own manifest compiler refuses unknown keys; so does this one, lest a
misspelt limit pass here and fail there. Python 3.8 and later, standard library only.
"""

import json
import sys
import uuid

TEMPLATE = """\
/* Made by port/host/manifest.py from {source}. */
#define MANIFEST_APP_NAME "{name}"
#define MANIFEST_UUID \\
    {{ {low:#010x}, {mid:#06x}, {high:#06x}, {{{node}}} }}
#define MANIFEST_MIN_HEAP {heap}u
#define MANIFEST_MIN_STACK {stack}u
#define MANIFEST_VERSION {version}u
"""

PAGE_BYTES = 4096
KEYS = {"uuid", "app_name", "min_heap", "min_stack", "version", "mgmt_flags", "start_ports"}
MGMT_FLAGS = {"restart_on_exit", "deferred_start", "non_critical_app"}
PORT_FLAGS = {"allow_ta_connect", "allow_ns_connect"}


class ManifestError(Exception):
    """The manifest is not one that Trusty would take; quotes the bad value."""


def expect_keys(where, found, expected):
    if not isinstance(found, dict) or set(found) != expected:
        raise ManifestError(f"{where}: expected exactly {sorted(expected)}, found {found!r}")


def positive(manifest, key, multiple=1):
    value = manifest[key]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0 or value % multiple:
        raise ManifestError(f"{key}: expected a positive multiple of {multiple}, found {value!r}")
    return value


def check_flags(where, flags, expected):
    expect_keys(where, flags, expected)
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise ManifestError(f"{where}.{key}: expected true or false, found {value!r}")


def header(manifest, source):
    """The text of the header for a parsed manifest; raises ManifestError."""
    expect_keys("manifest", manifest, KEYS)
    check_flags("mgmt_flags", manifest["mgmt_flags"], MGMT_FLAGS)
    for port in manifest["start_ports"]:
        expect_keys("start_ports", port, {"name", "flags"})
        check_flags(f"start_ports {port['name']}", port["flags"], PORT_FLAGS)
        if not 0 < len(port["name"]) < 64:
            raise ManifestError(f"start_ports: name {port['name']!r} does not fit 63 characters")
    name = manifest["app_name"]
    if not name.replace(".", "").replace("_", "").isalnum():
        raise ManifestError(f"app_name: {name!r} is no file name")
    try:
        app = uuid.UUID(manifest["uuid"])
    except (AttributeError, TypeError, ValueError):
        raise ManifestError(f"uuid: {manifest['uuid']!r} is none") from None
    return TEMPLATE.format(
        source=source,
        name=name,
        low=app.time_low,
        mid=app.time_mid,
        high=app.time_hi_version,
        node=", ".join(f"0x{b:02x}" for b in app.bytes[8:]),
        heap=positive(manifest, "min_heap", PAGE_BYTES),
        stack=positive(manifest, "min_stack", PAGE_BYTES),
        version=positive(manifest, "version"),
    )


def main(argv):
    if len(argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(argv[1], encoding="ascii") as file:
            text = header(json.load(file), argv[1])
    except (OSError, ValueError, ManifestError) as error:
        print(f"{argv[1]}: {error}", file=sys.stderr)
        return 65
    with open(argv[2], "w", encoding="ascii") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
