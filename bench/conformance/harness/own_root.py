"""A root file system of a scenario's own: this machine's as it is, with a layer in memory over it, in namespaces.

Packages are installed there for real, and where it is asked for systemd runs as its first process. Nothing of it is
seen outside, but for a control group that is removed at the end; the kernel's settings cannot be written inside.
Takes root.
"""

import os
import subprocess
from pathlib import Path

from . import wait

# The layers, a control group, and in that the namespaces. `$1` is an empty folder, the rest the first process.
_OUTSIDE = r"""
set -e
top=$1; shift
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root" "$top/groups"
mount -t overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" overlay "$top/root"
mount -t cgroup2 cgroup2 "$top/groups"
group="$top/groups/$(sed -n 's/^0:://p' /proc/self/cgroup)/heizer-scenario-$$"
mkdir "$group"
enter='echo $$ >"$1/cgroup.procs"; shift; exec unshare --mount --pid --fork --kill-child --ipc --uts --net --cgroup "$@"'
sh -c "$enter" sh "$group" sh -c "$INSIDE" sh "$top/root" "$@" || true
find "$group" -depth -type d -exec rmdir {} +
"""

# What a container has of /proc, /sys and /dev; then the root changes, and the first process takes over.
_INSIDE = r"""
set -e
root=$1; shift
mount -t proc proc "$root/proc"
for path in sys sysrq-trigger irq bus; do
    [ -e "$root/proc/$path" ] || continue
    mount --bind "$root/proc/$path" "$root/proc/$path"
    mount -o remount,bind,ro "$root/proc/$path"
done
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s null "$root/dev/console"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/zero" c 1 5
mknod -m 666 "$root/dev/full" c 1 7
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
mknod -m 666 "$root/dev/tty" c 5 0
mknod -m 666 "$root/dev/ptmx" c 5 2
# Nothing of this machine's own is started there, nobody keeps packages from starting theirs, and no index of manual
# pages is made.
rm -rf "$root"/usr/lib/systemd/system/*.wants "$root"/etc/systemd/system/*.wants "$root/usr/sbin/policy-rc.d"
ln -sf true "$root/usr/bin/mandb"
printf '[Unit]\nDefaultDependencies=no\n' >"$root/etc/systemd/system/scenario.target"
# As the outside sees it, whose /proc this still is.
read -r pid _ </proc/self/stat
cd "$root"
mkdir .outside
pivot_root . .outside
echo "$pid"
exec chroot . sh -c 'umount -l /.outside; rmdir /.outside; exec "$@"' sh "$@"
"""

_SYSTEMD = ("env", "container=scenario", "/lib/systemd/systemd", "--system", "--unit=scenario.target", "--log-target=null")
_SURROUNDINGS = {
    "stdin": subprocess.DEVNULL,
    "text": True,
    "env": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
}


class OwnRoot:
    """The root file system, in the folder `home`. A context."""

    def __init__(self, home: Path, systemd: bool = False):
        self._home = home
        self._first = _SYSTEMD if systemd else ("sleep", "infinity")
        self._outside = None
        self._pid = 0

    def __enter__(self) -> "OwnRoot":
        assert os.geteuid() == 0, "a package is installed in a root of its own, which takes root"
        self._home.mkdir(parents=True, exist_ok=True)
        line = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OUTSIDE, "sh", str(self._home), *self._first]
        environment = {**os.environ, "INSIDE": _INSIDE}
        self._outside = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        said = self._outside.stdout.readline().strip()
        assert said.isdigit(), f"no namespaces or no overlay can be had here: {said}"
        self._pid = int(said)
        try:
            wait.until("the first process runs", lambda: self.answers("test", "!", "-e", "/.outside"), 10)
            if self._first is _SYSTEMD:
                wait.until("systemd runs", lambda: self.answers("systemctl", "is-active", "scenario.target"), 30)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        # Everything inside goes with its first process; the outer shell then clears up.
        os.kill(self._pid, 9)
        self._outside.wait(30)
        self._outside.stdout.close()

    @property
    def inside(self) -> Path:
        """The root as seen from out here."""
        return Path(f"/proc/{self._pid}/root")

    def run(self, *command) -> subprocess.CompletedProcess:
        """Runs a command inside; its output is text."""
        return subprocess.run(self._line(command), capture_output=True, timeout=60, **_SURROUNDINGS)

    def start(self, *command) -> subprocess.Popen:
        """Starts a command inside, whose output nobody reads."""
        return subprocess.Popen(
            self._line(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_SURROUNDINGS
        )

    def answers(self, *command) -> bool:
        """Whether a command succeeds inside."""
        return self.run(*command).returncode == 0

    def must(self, *command) -> str:
        """What a command that must succeed writes."""
        done = self.run(*command)
        said = f"{done.stdout}{done.stderr}"
        assert done.returncode == 0, f"{' '.join(map(str, command))}: exit code {done.returncode}\n{said}"
        return done.stdout

    def _line(self, command: tuple) -> list:
        return ["nsenter", "-t", str(self._pid), "-m", "-p", "-i", "-u", "-n", "-C", "--", *map(str, command)]
