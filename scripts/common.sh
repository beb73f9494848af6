# Shared by the scripts: sourced, never run. Sets ROOT, enters it, and offers
# what a fresh Debian 12 or Ubuntu 22.04 needs. Every function does nothing, and
# needs no network, where its work was done before.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

say() { printf '== %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# To build and run; libgl1 and libglib2.0-0 are what opencv-python's wheel links to.
APT_TO_RUN="gcc make pkg-config libssl-dev libseccomp-dev python3-venv libgl1 libglib2.0-0"
APT_TO_TEST="g++ clang llvm valgrind gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    gcc-arm-linux-gnueabi libc6-dev-armel-cross qemu-user systemd"
# Installed where the distribution has them. Debian splits clang's sanitizer runtime off; Ubuntu 22.04 does not
# know the name. BoringSSL is for tests/test_build.py, which skips without it.
APT_IF_KNOWN="libclang-rt-14-dev android-libboringssl-dev"

apt_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# require_root PACKAGE ...: ends where as_root cannot install them.
require_root() {
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        die "neither root nor sudo here: have these packages installed first: $*"
}

# apt_setup [run]: everything, or only what running takes.
apt_setup() {
    command -v dpkg-query >/dev/null || { say "no dpkg here: tools are taken as they are"; return 0; }
    local name wanted=$APT_TO_RUN if_known="" missing=() optional=()
    if [ "${1:-}" != run ]; then wanted="$wanted $APT_TO_TEST" if_known=$APT_IF_KNOWN; fi
    for name in $wanted; do apt_installed "$name" || missing+=("$name"); done
    for name in $if_known; do apt_installed "$name" || optional+=("$name"); done
    if [ ${#missing[@]} -gt 0 ]; then
        require_root "${missing[@]}"
        say "installing ${missing[*]}"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
    for name in "${optional[@]}"; do
        if apt-cache show "$name" >/dev/null 2>&1; then
            say "installing $name"
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "$name" ||
                say "$name could not be installed: the tests that need it are skipped"
        fi
    done
}

# venv_setup PYTHON FOLDER EXTRAS: an environment with this checkout and these
# extras, or more. Stamps name what it was made from, so a warm call is free.
venv_setup() {
    local python=$1 folder=$2 extras=$3 stamp
    stamp=$({ "$python" -c 'import sys; print(sys.version, sys.executable)'; \
              cat setup.cfg pyproject.toml scripts/constraints.txt; } | sha256sum)
    if [ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ]; then
        say "setting up $folder with $("$python" --version 2>&1)"
        rm -rf "$folder"
        "$python" -m venv "$folder"
        "$folder/bin/python" -m pip install -q --disable-pip-version-check --upgrade pip
    fi
    case ",$(cat "$folder/extras" 2>/dev/null)," in *",$extras,"*) return 0 ;; esac
    "$folder/bin/python" -m pip install -q --disable-pip-version-check -c scripts/constraints.txt -e ".[$extras]"
    printf '%s\n' "$extras" >"$folder/extras"
    printf '%s\n' "$stamp" >"$folder/stamp"
}

# Prints a Python 3.8 that really runs (a pyenv shim may not), or fails.
find_python38() {
    local candidate
    for candidate in python3.8 "$HOME"/.pyenv/versions/3.8.*/bin/python; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 8))' \
            >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}
