"""What can be said of Python 3.8 without an interpreter of it.

Every source parses with the grammar of 3.8, and every dependency that a node needs has a wheel for
it (asked of the package index; said loudly and left out where there is none to be reached).
Exit code 1 on any finding.
"""

import ast
import configparser
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("edged", "tests", "scripts")


def syntax_findings():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            try:
                ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 8))
            except SyntaxError as error:
                yield "{}:{}: not Python 3.8: {}".format(path.relative_to(ROOT), error.lineno, error.msg)


def wheel_findings():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = config["options"]["install_requires"] + config["options.extras_require"]["node"]
    for requirement in filter(None, (line.strip() for line in wanted.splitlines())):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check",
                 "--no-deps", "--only-binary", ":all:", "--python-version", "3.8",
                 "--dest", folder, requirement],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        if done.returncode == 0:
            continue
        if "NewConnectionError" in done.stdout or "Temporary failure" in done.stdout:
            print("SKIPPED: no package index in reach, the cp38 wheels were not checked", file=sys.stderr)
            return
        yield "{}: no wheel for Python 3.8".format(requirement)


def main():
    findings = list(syntax_findings()) + list(wheel_findings())
    for line in findings:
        print(line, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
