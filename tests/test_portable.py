"""Nothing that happens when our modules are imported needs Unix."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.test_layering import ROOMS, ROOT, defines_a_network, module_name, modules

_AS_ON_WINDOWS = """
import importlib, os, signal, sys

def imported(names, ours):
    for name in names:
        importlib.import_module(name)
    for name in [each for each in sys.modules if each.partition(".")[0] in ours]:
        del sys.modules[name]

ours, names = set(sys.argv[1].split(",")), sys.argv[2:]
imported(names, ours)  # so that only our own modules are executed the second time
for name in "fcntl resource grp pwd pty tty termios syslog posix".split():
    sys.modules[name] = None
unix = "chown chroot fchmod fchown fork forkpty getegid geteuid getgid getgroups getpgid getuid initgroups killpg lchown mkfifo "
unix += "nice openpty pread pwrite sched_getaffinity setegid seteuid setgid setpgid setsid setuid statvfs sysconf uname wait3 wait4 "
unix += "WEXITSTATUS WIFEXITED WIFSIGNALED WNOHANG WTERMSIG O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC"
for name in unix.split():
    vars(os).pop(name, None)
for name in [each for each in dir(signal) if each.startswith("SIG") and each not in
             ("SIGABRT", "SIGBREAK", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN")]:
    delattr(signal, name)
for name in "alarm pause pthread_kill pthread_sigmask set_wakeup_fd_unix setitimer sigpending sigwait".split():
    vars(signal).pop(name, None)
from prometheus_client import REGISTRY
for collector in list(REGISTRY._collector_to_names):
    REGISTRY.unregister(collector)
imported(names, ours)
"""


@pytest.mark.slow  # every module there is, twice
def test_every_module_is_imported_where_there_is_nothing_of_unix() -> None:
    """What Windows has of `os` and `signal`, and none of the modules that it lacks."""
    names = [module_name(path) for path in modules() if not path.endswith("__main__.py") and not defines_a_network(path)]
    done = subprocess.run(
        [sys.executable, "-c", _AS_ON_WINDOWS, ",".join(ROOMS), *names], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
