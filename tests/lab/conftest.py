"""What the lab's tests share: labs that always go away, their logs kept when a test fails, and
--regex."""

import os
import pathlib
import re
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from lab.lab import Lab  # noqa: E402
from scene import Scene  # noqa: E402

EVIDENCE = HERE.parents[1] / "build" / "reports" / "lab"


def pytest_addoption(parser):
    parser.addoption(
        "--regex", help="run only the tests whose name matches this regular expression"
    )


def pytest_collection_modifyitems(config, items):
    wanted = config.getoption("--regex")
    if not wanted:
        return
    chosen = [item for item in items if re.search(wanted, item.nodeid)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for lab in item.session.stash.get(labs_key, []):
            target = EVIDENCE / re.sub(r"[^A-Za-z0-9_.-]+", "-", item.name)
            if lab.dir.exists():
                lab.save_evidence(target)
                report.sections.append(("lab", f"the history and all logs are in {target}"))


labs_key = pytest.StashKey[list]()


@pytest.fixture(scope="session", autouse=True)
def clean_machine():
    Lab.cleanup_stale()


def _new_lab(session) -> Lab:
    labs = session.stash.setdefault(labs_key, [])
    labs.append(Lab(f"t{os.getpid()}-{len(labs) + 1}"))
    return labs[-1]


@pytest.fixture
def make_lab(request):
    """Labs of one test, not yet up; they go away with it."""
    made = []

    def make() -> Lab:
        made.append(_new_lab(request.session))
        return made[-1]

    yield make
    for lab in made:
        if lab.dir.exists():
            lab.down()


@pytest.fixture
def make_scene(make_lab):
    """A scene with havm running on both hosts; options go to Product."""

    def make(**product_options) -> Scene:
        return Scene(make_lab().up(boot=False), **product_options).start()

    return make


@pytest.fixture
def scene(make_scene) -> Scene:
    """A protected VM that runs on host a, in sync."""
    return make_scene().protect_and_run()


@pytest.fixture(scope="module")
def shared_scene(request):
    """One pair of hosts for a whole module of tests that change nothing."""
    lab = _new_lab(request.session).up(boot=False)
    try:
        yield Scene(lab).start()
    finally:
        lab.down()
