"""`heizer check`: what an operator is told about this host, and `heizer reference`: what can be set."""

import json
import subprocess

import pytest

from harness import paths
from harness.server import free_port
from harness.small_disk import SmallDisk

pytestmark = pytest.mark.heizer


def run(*arguments, prefix=()):
    line = [*prefix, str(paths.heizer()), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)


class Report:
    """What a check has said, whose exit code must agree with it."""

    def __init__(self, done: subprocess.CompletedProcess):
        assert done.stderr == "", done.stderr
        document = json.loads(done.stdout)
        self.findings = document["findings"]
        levels = [finding["level"] for finding in self.findings]
        assert document["problems"] == levels.count("problem") and document["advice"] == levels.count("advice")
        assert done.returncode == (1 if document["problems"] else 0)

    def about(self, subject: str) -> dict:
        """The finding that is worst of those about a subject."""
        found = [finding for finding in self.findings if finding["subject"].startswith(subject)]
        assert found, f"nothing about {subject} in {self.findings}"
        return max(found, key=lambda finding: ("ok", "advice", "problem").index(finding["level"]))


@pytest.fixture
def check(tmp_path):
    """Checks with the flags of a broker, by default one that has a place of its own."""

    def check(*flags, listen=None, data=None, prefix=()) -> Report:
        line = ["check", "--output", "json", "--data-dir", data or tmp_path / "data"]
        line += ["--listen", listen or f"127.0.0.1:{free_port()}", "--admin-listen", f"127.0.0.1:{free_port()}", *flags]
        return Report(run(*line, prefix=prefix))

    return check


def test_this_host_serves_brokers_and_is_left_alone(check, tmp_path):
    report = check()
    # Every other scenario runs a broker here.
    for subject in ("kernel", "io_uring", "memlock", "nofile", "cores", "memory", "data directory", "listener"):
        assert report.about(subject)["level"] != "problem", report.about(subject)
    for finding in report.findings:
        assert "\n" not in finding["found"] and (finding["level"] == "ok") == (finding["remedy"] is None), finding
    assert not (tmp_path / "data").exists()


def test_people_read_a_line_for_each_finding_and_each_remedy(tmp_path):
    line = ("check", "--data-dir", tmp_path / "data", "--listen", f"127.0.0.1:{free_port()}", "--cores", "1000")
    done = run(*line)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(at for at, text in enumerate(lines) if text.startswith("problem  cores: 1000 cores are asked for"))
    assert lines[at + 1].strip().startswith("to do: set heizer.cores")
    assert lines[-1].startswith("problems: ")


def test_addresses_in_use_and_of_others_are_problems(check, broker):
    found = check(listen=broker.bootstrap).about(f"listener {broker.bootstrap}")
    assert found["level"] == "problem" and f":{broker.port}" in found["remedy"]
    found = check(listen="192.0.2.1:9092").about("listener 192.0.2.1:9092")
    assert found["level"] == "problem" and "--listen" in found["remedy"]


def test_a_running_broker_is_no_problem(check, broker):
    report = check(listen=broker.bootstrap, data=broker.data)
    assert report.about(f"listener {broker.bootstrap}")["level"] == "ok"
    found = report.about("data directory")
    assert (found["level"], found["found"]) == ("ok", f"process {broker.pid} works in it")


def test_a_data_directory_tells_how_it_was_left(check, start_broker):
    broker = start_broker()
    broker.stop()
    assert "in good order" in check(data=broker.data).about("data directory")["found"]
    before = sorted(path.name for path in broker.data.iterdir())
    found = check("--node-id", "7", data=broker.data).about("data directory")
    assert found["level"] == "problem" and "--node-id 1" in found["remedy"]
    assert sorted(path.name for path in broker.data.iterdir()) == before
    broker.start()
    broker.kill()
    found = check(data=broker.data).about("data directory")
    assert found["level"] == "advice" and "recover-dry-run" in found["remedy"]


def test_memory_that_is_not_there_and_a_disk_in_memory_are_problems(check, tmp_path):
    config = tmp_path / "heizer.toml"
    config.write_text(f"heizer.memory.per.core.bytes = {1 << 40}\n")
    assert check("--config", config).about("memory")["level"] == "problem"
    with SmallDisk(tmp_path / "disk", mib=64) as disk:
        found = check(data=disk.path / "data", prefix=disk.prefix).about(f"file system of {disk.path}")
    assert found["level"] == "problem" and found["found"].startswith("tmpfs")


def test_what_serve_refuses_to_read_check_refuses_too(tmp_path):
    for flags, said in ((("--config", tmp_path / "nowhere.toml"), "nowhere.toml"), (("--cores", "none"), "--cores")):
        done = run("check", *flags)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith("heizer: ") and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert run("check", "--no-such-flag").returncode == 2


def test_the_reference_is_the_page_in_deploy():
    done = run("reference")
    assert done.returncode == 0
    assert done.stdout == (paths.REPOSITORY / "deploy" / "CONFIGURATION.md").read_text()
