"""What an operator installs: the unit, the package, the container's command line; for real, in a root of their own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import paths, wait
from harness.own_root import OwnRoot

pytestmark = pytest.mark.heizer

DEPLOY = paths.REPOSITORY / "deploy"
UNIT = DEPLOY / "heizer.service"
# Out of 10, as systemd-analyze prints it.
EXPOSURE_MAX = 1.9
LOG = "/var/log/heizer.log"


def build(folder: Path, version: str) -> Path:
    """The package of the binary under test."""
    line = [sys.executable, str(DEPLOY / "package" / "build.py"), "--binary", str(paths.heizer())]
    line += ["--output", str(folder), "--version", version]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Two versions of the package, the older one first."""
    folder = tmp_path_factory.mktemp("packages")
    return build(folder, "1.0.0"), build(folder, "1.0.1")


@pytest.fixture
def plain(tmp_path):
    """A root without systemd."""
    with OwnRoot(tmp_path / "root") as root:
        yield root


@pytest.fixture
def booted(tmp_path):
    """A root in which systemd runs."""
    with OwnRoot(tmp_path / "root", systemd=True) as root:
        folder = root.inside / "etc/systemd/system/heizer.service.d"
        folder.mkdir(parents=True)
        # There is no journal in there, and nobody waits for seconds.
        lines = ("[Service]", f"StandardOutput=file:{LOG}", f"StandardError=file:{LOG}", "RestartSec=100ms")
        (folder / "scenario.conf").write_text("\n".join(lines) + "\n")
        yield root


def test_the_unit_is_valid_and_exposes_little(plain, packages):
    plain.must("dpkg", "--install", packages[0])
    done = plain.run("systemd-analyze", "verify", "--man=no", "heizer.service")
    assert done.returncode == 0 and "heizer" not in done.stdout + done.stderr, done.stdout + done.stderr
    # Without colours and its table of symbols the last line is the sum.
    line = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
    exposure = re.search(r"Overall exposure level for heizer.service: ([0-9.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure.group(1)) <= EXPOSURE_MAX


def test_a_package_comes_and_goes_where_no_systemd_runs(plain, packages):
    older, newer = packages
    plain.must("dpkg", "--install", older)
    assert "heizer" in plain.must("heizer", "--version")
    assert plain.must("stat", "-c", "%U:%G %a", "/var/lib/heizer").strip() == "heizer:heizer 750"
    assert plain.must("sh", "-c", "getent passwd heizer").strip().endswith(":/var/lib/heizer:/usr/sbin/nologin")
    for file in INSTALLED:
        assert (plain.inside / file).is_file(), file
    enabled = plain.inside / "etc/systemd/system/multi-user.target.wants/heizer.service"
    assert enabled.is_symlink()

    # Once more, then the next version: what was changed meanwhile stays.
    plain.must("dpkg", "--install", older)
    settings = plain.inside / "etc/heizer/heizer.toml"
    settings.write_text(settings.read_text() + "\n# mine\n")
    plain.must("sh", "-c", "echo kept > /var/lib/heizer/kept")
    plain.must("systemctl", "disable", "heizer.service")
    plain.must("dpkg", "--install", newer)
    assert settings.read_text().endswith("# mine\n")
    assert not enabled.is_symlink(), "who has disabled the service is left alone"

    plain.must("dpkg", "--remove", "heizer")
    assert not (plain.inside / "usr/bin/heizer").exists()
    assert settings.exists() and (plain.inside / "var/lib/heizer/kept").exists()
    assert plain.answers("getent", "passwd", "heizer")
    plain.must("dpkg", "--purge", "heizer")
    for gone in ("var/lib/heizer", "etc/heizer", "etc/security/limits.d/90-heizer.conf"):
        assert not (plain.inside / gone).exists(), gone
    assert not plain.answers("getent", "passwd", "heizer") and not plain.answers("getent", "group", "heizer")
    left = plain.run("sh", "-c", "find /etc/systemd /var/lib/systemd -name '*heizer*' | grep .")
    assert left.stdout == "", "nothing is left of the service"


def test_purging_what_was_never_configured_is_no_error(plain, packages):
    plain.must("dpkg", "--unpack", packages[0])
    plain.must("dpkg", "--purge", "heizer")
    assert not (plain.inside / "usr/bin/heizer").exists()


def test_an_installed_broker_runs_under_systemd_in_its_sandbox(booted, packages):
    older, newer = packages
    booted.must("dpkg", "--install", older)
    first = running(booted)
    assert "ready on 127.0.0.1:9092" in first["StatusText"]
    assert first["WatchdogUSec"] == "1min"
    # By the id it has inside: the /proc that the harness sees counts otherwise.
    status = (booted.inside / "proc" / first["MainPID"] / "status").read_text()
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"):
        assert line in status
    booted.must("heizer", "topic", "create", "kept", "--partitions", "3")
    booted.must("sh", "-c", "echo record | heizer produce kept")

    # Killed, it is back, and has looked at its logs.
    booted.must("systemctl", "kill", "--signal=KILL", "heizer.service")
    wait.until("it was restarted", lambda: show(booted)["NRestarts"] == "1" and is_running(booted), 20)
    assert read_back(booted) == "record\n"

    booted.must("dpkg", "--install", newer)
    second = running(booted)
    assert second["MainPID"] != first["MainPID"], "an upgrade restarts it"
    assert read_back(booted) == "record\n"
    booted.must("dpkg", "--remove", "heizer")
    data = booted.inside / "var/lib/heizer"
    assert not (data / "heizer.pid").exists(), "nobody is there"
    assert (data / ".kafka_cleanshutdown").exists(), "it was stopped in good order"
    booted.must("dpkg", "--install", newer)
    assert read_back(booted) == "record\n"
    booted.must("dpkg", "--purge", "heizer")
    assert not data.exists()


def test_a_wrong_command_line_is_not_tried_again(booted, packages):
    booted.must("dpkg", "--install", packages[0])
    folder = booted.inside / "etc/systemd/system/heizer.service.d"
    (folder / "wrong.conf").write_text("[Service]\nExecStart=\nExecStart=/usr/bin/heizer serve --no-such-flag\n")
    booted.must("systemctl", "daemon-reload")
    assert not booted.answers("systemctl", "restart", "heizer.service")
    found = show(booted)
    assert (found["ActiveState"], found["NRestarts"], found["ExecMainStatus"]) == ("failed", "0", "2")


def test_what_a_container_runs_serves_and_is_healthy(booted, packages):
    booted.must("dpkg", "--install", packages[0])
    booted.must("systemctl", "stop", "heizer.service")
    said = (DEPLOY / "Containerfile").read_text()
    program, arguments = (json.loads(found) for found in re.search(r"ENTRYPOINT (.*)\n.*\nCMD (.*)\n", said).groups())
    health = json.loads(re.search(r"HEALTHCHECK .* CMD (.*)\n", said).group(1))
    as_user = ("setpriv", "--reuid=heizer", "--regid=heizer", "--clear-groups", "--no-new-privs")
    assert not booted.answers(*health), "nobody serves yet"
    broker = booted.start(*as_user, *program, *arguments)
    wait.until("it is healthy", lambda: booted.answers(*health), 20)
    booted.must("sh", "-c", "kill -TERM $(cat /var/lib/heizer/heizer.pid)")
    assert broker.wait(30) == 0
    # What it is built from is there.
    for source in re.findall(r"^!(\S+)", (paths.REPOSITORY / ".dockerignore").read_text(), re.MULTILINE):
        assert (paths.REPOSITORY / source).exists(), source


def test_every_setting_of_the_kernel_is_one_and_has_its_reason():
    for block in (DEPLOY / "sysctl.d" / "90-heizer.conf").read_text().strip().split("\n\n"):
        lines = block.splitlines()
        settings = [line for line in lines if not line.startswith("#")]
        assert lines[0].startswith("# "), block
        for line in settings:
            name = line.split(" = ")[0]
            assert Path("/proc/sys", *name.split(".")).exists(), name


INSTALLED = (
    "usr/bin/heizer",
    "usr/lib/systemd/system/heizer.service",
    "usr/lib/sysctl.d/90-heizer.conf",
    "etc/heizer/heizer.toml",
    "etc/security/limits.d/90-heizer.conf",
    "usr/share/man/man1/heizer.1.gz",
    "usr/share/bash-completion/completions/heizer",
    "usr/share/zsh/vendor-completions/_heizer",
    "usr/share/fish/vendor_completions.d/heizer.fish",
    "usr/share/doc/heizer/CONFIGURATION.md",
)


def show(root: OwnRoot) -> dict:
    """What systemd knows of the service."""
    names = "ActiveState,MainPID,NRestarts,StatusText,WatchdogUSec,ExecMainStatus"
    lines = root.must("systemctl", "show", "heizer.service", "--property", names).splitlines()
    return dict(line.split("=", 1) for line in lines)


def is_running(root: OwnRoot) -> bool:
    return show(root)["ActiveState"] == "active"


def running(root: OwnRoot) -> dict:
    """What systemd knows of the service, which runs."""
    found = show(root)
    assert found["ActiveState"] == "active", f"{found}\n{root.run('cat', LOG).stdout}"
    return found


def read_back(root: OwnRoot) -> str:
    return root.must("heizer", "consume", "kept", "--from-beginning", "--max-messages", "1", "--timeout-ms", "10000")
