"""Fixtures: a broker for everybody, a broker of one's own, names that nobody else uses.

--bootstrap HOST:PORT runs the client scenarios against a broker that runs already
--reference runs everything against Apache Kafka instead: a scenario that fails there is itself wrong
"""

import itertools
import uuid
from typing import Optional

import pytest

from harness import paths
from harness.cli import Cli
from harness.server import ApacheKafka, Heizer, Server

_MEASURED = pytest.StashKey[list]()
_FAILED = pytest.StashKey[bool]()
_OWN_BROKER_FIXTURES = {"broker", "start_broker", "serve"}


def pytest_addoption(parser):
    group = parser.getgroup("conformance")
    group.addoption("--bootstrap", metavar="HOST:PORT", help="an external broker for the client scenarios")
    group.addoption("--reference", action="store_true", help="check the scenarios against Apache Kafka")


def pytest_configure(config):
    config.stash[_MEASURED] = []
    external = config.getoption("--bootstrap") or config.getoption("--reference")
    if not external and not config.option.collectonly and not paths.heizer().exists():
        raise pytest.UsageError(f"no binary to test at {paths.heizer()}: run cargo build --release, or set HEIZER_BIN")


def pytest_collection_modifyitems(config, items):
    """Against another broker, what cannot apply is left out, and pytest counts it as deselected."""

    def applies(item) -> bool:
        if config.getoption("--bootstrap"):
            return not item.get_closest_marker("heizer") and not _OWN_BROKER_FIXTURES & set(item.fixturenames)
        return not (config.getoption("--reference") and item.get_closest_marker("heizer"))

    left_out = [item for item in items if not applies(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if applies(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_MEASURED]:
        terminalreporter.section("measured")
        for line in config.stash[_MEASURED]:
            terminalreporter.write_line(line)


@pytest.fixture
def measured(request):
    """Call it with a line that the summary is to show."""
    return lambda line: request.config.stash[_MEASURED].append(f"{request.node.name}: {line}")


class Target:
    """The broker that the plain client scenarios share."""

    def __init__(self, bootstrap: str, server: Optional[Server]):
        self.bootstrap = bootstrap
        self.server = server


@pytest.fixture(scope="session")
def _shared(request, tmp_path_factory):
    if external := request.config.getoption("--bootstrap"):
        yield Target(external, None)
        return
    settings = {"group.initial.rebalance.delay.ms": 0}
    server = _kind(request.config)(tmp_path_factory.mktemp("shared"), settings)
    try:
        yield Target(server.start().bootstrap, server)
        server.close()
    finally:
        server.abandon()


@pytest.fixture
def target(_shared):
    """The shared broker; it must be alive and have nothing to complain of after each test."""
    yield _shared
    if _shared.server is not None:
        _shared.server.assert_alive()
        _shared.server.check_log()


@pytest.fixture
def bootstrap(target) -> str:
    return target.bootstrap


@pytest.fixture
def start_broker(request, tmp_path):
    """Starts brokers of the test's own: `start_broker(settings={...})`; checked and removed at the end."""
    started: list[Server] = []

    def start(settings: Optional[dict] = None, **options) -> Server:
        server = _kind(request.config)(tmp_path / f"broker-{len(started)}", settings, **options)
        started.append(server)
        return server.start()

    try:
        yield start
        if not request.node.stash.get(_FAILED, False):
            for server in started:
                server.close()
    finally:
        for server in started:
            server.abandon()


@pytest.fixture
def broker(start_broker) -> Server:
    """One broker of the test's own."""
    return start_broker({"group.initial.rebalance.delay.ms": 0})


@pytest.fixture
def heizer(bootstrap) -> Cli:
    """Runs a verb against the shared broker that must succeed; returns its standard output."""
    return Cli(bootstrap)


@pytest.fixture
def failing(heizer):
    """Runs a verb that must fail with one line; returns that line."""
    return heizer.failing


@pytest.fixture
def fresh(request):
    """Names nobody else uses: `fresh("orders")`."""
    count = itertools.count()
    return lambda stem="t": f"{stem}-{uuid.uuid4().hex[:8]}-{next(count)}"


def _kind(config) -> type:
    return ApacheKafka if config.getoption("--reference") else Heizer
