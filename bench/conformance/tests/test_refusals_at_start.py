"""What cannot work is said in one clear line on standard error, exit code 1, before anything is changed."""

import os
import subprocess

import pytest

from harness import librdkafka as lib
from harness import paths
from harness.load import Bystander
from harness.server import Heizer, free_port

pytestmark = pytest.mark.heizer


@pytest.fixture
def refused(tmp_path):
    """Runs `heizer serve` with flags that must be refused; returns the one line."""

    def run(*flags, listen=None, data=None):
        line = [str(paths.heizer()), "serve", "--listen", listen or f"127.0.0.1:{free_port()}"]
        line += ["--data-dir", str(data or tmp_path / "data"), "--admin-listen", f"127.0.0.1:{free_port()}", *flags]
        done = subprocess.run(line, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, cwd=tmp_path)
        assert done.returncode == 1, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
        assert "ready" not in done.stdout
        said = done.stderr.splitlines()
        assert len(said) == 1 and said[0].startswith("heizer: "), f"not one clear line: {done.stderr!r}"
        return said[0]

    return run


def test_a_port_in_use(broker, refused):
    lib.create_topic(broker.bootstrap, "honest")
    with Bystander(broker.bootstrap, "honest"):
        assert str(broker.port) in refused(listen=broker.bootstrap)


def test_an_admin_port_in_use(broker, refused):
    assert str(broker.admin_port) in refused("--admin-listen", f"127.0.0.1:{broker.admin_port}")


def test_a_data_folder_that_another_broker_has_locked(broker, refused):
    lib.create_topic(broker.bootstrap, "honest")
    with Bystander(broker.bootstrap, "honest"):
        said = refused(data=broker.data)
    assert str(broker.data) in said
    assert str(broker.pid) in (broker.data / "heizer.pid").read_text()


def test_the_lock_of_a_killed_broker_does_not_hold(broker):
    broker.expect_log(r"recover|unclean|truncat|cut")
    broker.kill()
    assert (broker.data / "heizer.pid").exists()
    broker.start()


def test_a_data_folder_that_cannot_be_written(tmp_path, refused):
    # Below a regular file nobody can create anything, not even root.
    file = tmp_path / "file"
    file.write_text("not a folder")
    assert str(file) in refused(data=file / "data")
    if os.geteuid() != 0:
        folder = tmp_path / "read-only"
        folder.mkdir(mode=0o500)
        assert str(folder) in refused(data=folder)


def test_a_data_folder_of_a_newer_format(start_broker, refused):
    broker = start_broker()
    broker.stop()
    version = broker.data / "format"
    kept = version.read_text()
    version.write_text("999\n")
    said = refused(data=broker.data)
    assert "999" in said and "format" in said
    assert version.read_text() == "999\n", "nothing is changed"
    version.write_text(kept)
    broker.start()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('"no.such.setting" = 1\n', "no.such.setting"),
        ('"log.segment.bytes" = "many"\n', "log.segment.bytes"),
        ('"log.segment.bytes" = true\n', "log.segment.bytes"),
        ('"log.segment.bytes" = -1\n', "log.segment.bytes"),
        ("this is not TOML\n", "heizer.toml"),
    ],
)
def test_an_invalid_configuration_file(tmp_path, refused, text, named):
    config = tmp_path / "heizer.toml"
    config.write_text(text)
    assert named in refused("--config", str(config))


def test_a_missing_configuration_file(tmp_path, refused):
    assert "nowhere.toml" in refused("--config", str(tmp_path / "nowhere.toml"))


def test_a_configuration_file_is_obeyed(start_broker):
    broker = start_broker({"num.partitions": 4, "log.segment.bytes": 1 << 20})
    lib.produce_all(broker.bootstrap, "automatic", [{"value": b"x"}])
    client = lib.admin(broker.bootstrap)
    assert len(client.list_topics(timeout=10).topics["automatic"].partitions) == 4
    resource = lib.topic_resource("automatic")
    found = client.describe_configs([resource])[resource].result(lib.TIMEOUT_S)
    assert found["segment.bytes"].value == str(1 << 20)


def test_an_impossible_flag_is_a_usage_error(tmp_path):
    line = [str(paths.heizer()), "serve", "--listen", "nonsense", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, cwd=tmp_path)
    assert done.returncode != 0 and "nonsense" in done.stderr and "panicked" not in done.stderr


def test_the_advertised_address_and_the_node_id_are_the_ones_given(start_broker):
    port = free_port()
    broker = start_broker(flags=("--advertise", f"localhost:{port}", "--node-id", "7"))
    # The bootstrap answers; what it answers is asked of metadata alone, since nobody listens at that address.
    brokers = lib.admin(broker.bootstrap).list_topics(timeout=10).brokers
    assert [(b.id, b.host, b.port) for b in brokers.values()] == [(7, "localhost", port)]


def test_port_0_picks_a_free_port_and_the_ready_line_tells_it(tmp_path):
    server = _OnAnyPort(tmp_path)
    try:
        server.start()
        assert server.port != 0
        assert lib.admin(server.bootstrap).list_topics(timeout=10).brokers
        server.close()
    finally:
        server.abandon()


class _OnAnyPort(Heizer):
    """Leaves the choice of the port to the broker."""

    def __init__(self, home):
        super().__init__(home)
        self.port = 0

    def _is_ready(self) -> bool:
        stem = "heizer ready on 127.0.0.1:"
        lines = [n for n in self.stdout_path.read_text().splitlines(keepends=True) if n.startswith(stem)]
        if not lines or not lines[0].endswith("\n"):
            return False
        self.port = int(lines[0].removeprefix(stem))
        return True
