"""What tests ask about processes that are not their own children."""


def is_alive(pid):
    """Whether the process runs: where nobody reaps orphans, it may stay as a zombie."""
    try:
        with open("/proc/{}/stat".format(pid), encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
