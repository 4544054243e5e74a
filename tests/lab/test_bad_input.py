"""Bad input: each a clear error on standard error, exit status 1, and nothing changed on either
host or at the witness."""

import contextlib
import json
import signal
import subprocess

import pytest

from lab import vms
from lab.domain import IMAGES, disk_path, domain_xml
from lab.network import ADDRESSES
from lab.procs import wait_until
from lab.product import WITNESS_PORT
from scene import Scene

DISK = 4 << 20
CASE = "case"


@pytest.fixture
def world(shared_scene):
    """Host a with one shut-off VM on a file disk, as fresh for every test."""
    scene = shared_scene
    vms.define_vm(scene.lab, scene.a, CASE, disk_bytes=DISK)
    try:
        yield scene
    finally:
        scene.a.virsh("destroy", CASE, check=False)
        scene.a.virsh("undefine", CASE)
        scene.a.path(disk_path(CASE)).unlink(missing_ok=True)


def state_of(scene) -> dict:
    """Everything that a refused command must leave alone."""
    state = {}
    for host in scene.lab.hosts.values():
        names = host.virsh("list", "--all", "--name").stdout.split()
        state[host.name, "domains"] = {
            name: host.virsh("dumpxml", "--inactive", name).stdout for name in names
        }
        state[host.name, "states"] = {name: host.virsh("domstate", name).stdout for name in names}
        files = host.exec(
            ["find", "/var/lib/havm/vms", IMAGES, "/run/havm/vms", "-printf", "%p %s %m\n"],
            check=False,
        ).stdout
        state[host.name, "files"] = sorted(files.splitlines())
        state[host.name, "engines"] = host.pids_of("havm-repl")
    url = f"http://{ADDRESSES['lan']['w']}:{WITNESS_PORT}/v1/clusters/lab/registers"
    code = (
        f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
    )
    asked = subprocess.run(
        ["ip", "netns", "exec", scene.lab.network.namespaces["w"], "/usr/bin/python3", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    state["registers"] = sorted(json.loads(asked.stdout)["registers"])
    return state


def refused(scene, *argv: str, says: list[str], host=None) -> None:
    host = host or scene.a
    before = state_of(scene)
    done = scene.havm(host, *argv, check=False)
    assert done.returncode == 1, f"exit status {done.returncode}: {done.stdout}{done.stderr}"
    assert done.stderr.startswith("error: "), done.stderr
    for part in says:
        assert part.lower() in done.stderr.lower(), f"'{part}' is not in: {done.stderr}"
    assert state_of(scene) == before


def redefine(scene, **options) -> None:
    scene.a.virsh("undefine", CASE)
    vms.define_xml(scene.a, CASE, domain_xml(CASE, vms.guest_description(CASE), **options))


def write(scene, name: str, text: str) -> str:
    path = f"/var/lib/havm/{name}"
    scene.a.path(path).write_text(text)
    return path


PROTECT = ("protect", CASE, "--peer", "b")


@pytest.mark.parametrize(
    "verb",
    [
        ["dominfo"],
        ["unprotect"],
        ["start"],
        ["shutdown"],
        ["destroy"],
        ["failover"],
        ["explain"],
        ["protect", "--peer", "b"],
    ],
    ids=lambda verb: verb[0],
)
def test_unknown_vm(world, verb):
    refused(world, verb[0], "nope", *verb[1:], says=["failed to get domain 'nope'"])


def test_unknown_node(world):
    refused(world, "protect", CASE, "--peer", "z", says=["failed to get node 'z'"])


def test_itself_as_peer(world):
    refused(world, "protect", CASE, "--peer", "a", says=["node a is this node"])


POLICIES = {
    "malformed": ('{"version": 1,', ["policy"]),
    "unknown-key": ('{"version": 1, "failoverr": {"mode": "auto"}}', ["failoverr"]),
    "unknown-value": ('{"version": 1, "failover": {"mode": "perhaps"}}', ["mode"]),
    "wrong-type": ('{"version": "1"}', ["version"]),
}


@pytest.mark.parametrize("name", POLICIES)
def test_bad_policy(world, name):
    text, says = POLICIES[name]
    refused(world, *PROTECT, "--policy", write(world, "policy.json", text), says=says)


def test_policy_file_missing(world):
    refused(
        world, *PROTECT, "--policy", "/var/lib/havm/none.json", says=["/var/lib/havm/none.json"]
    )


def test_disk_file_missing(world):
    world.a.path(disk_path(CASE)).unlink()
    refused(world, *PROTECT, says=[disk_path(CASE)])


def test_disk_file_busy(world):
    server = world.a.spawn(
        ["qemu-nbd", "-t", "-f", "raw", "-k", "/run/busy.sock", disk_path(CASE)], "qemu-nbd"
    )
    try:
        wait_until(
            "qemu-nbd to hold the image",
            lambda: world.a.exec(["test", "-S", "/run/busy.sock"], check=False).returncode == 0,
            10,
        )
        refused(world, *PROTECT, says=[disk_path(CASE)])
    finally:
        world.a.exec(["pkill", "-x", "qemu-nbd"])
        server.wait()


@contextlib.contextmanager
def mounted_on_b(scene, *argv: str):
    scene.b.exec(["mount", *argv, IMAGES])
    try:
        yield
    finally:
        scene.b.exec(["umount", IMAGES])


def test_partner_without_space(world):
    with mounted_on_b(world, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        refused(world, *PROTECT, says=["node b", "free"])


def test_partner_with_a_read_only_file_system(world):
    with mounted_on_b(world, "-t", "tmpfs", "-o", "ro", "tmpfs"):
        refused(world, *PROTECT, says=["b", IMAGES])


def test_partner_has_a_domain_of_that_name(world):
    vms.define_xml(world.b, CASE, domain_xml(CASE, vms.guest_description(CASE)))
    try:
        refused(world, *PROTECT, says=["b", CASE])
    finally:
        world.b.virsh("undefine", CASE)


def test_partner_has_the_image_file_already(world):
    path = vms.create_disk(world.b, CASE, DISK)
    try:
        refused(world, *PROTECT, says=["b", disk_path(CASE)])
    finally:
        path.unlink()


LUN = (
    "<disk type='block' device='lun'><driver name='qemu' type='raw'/><source dev='/dev/sdz'/>"
    "<target dev='sda' bus='scsi'/></disk>"
)
PCI = (
    "<hostdev mode='subsystem' type='pci' managed='yes'>"
    "<source><address domain='0' bus='0' slot='3' function='0'/></source>"
    "</hostdev>"
)
CDROM = (
    "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>{source}"
    "<target dev='hda' bus='ide'/><readonly/></disk>"
)
DEVICES = {
    "shared-disk": ({"disk_extra": "<shareable/>"}, ["share", "vda"]),
    "readonly-disk": ({"disk_extra": "<readonly/>"}, ["read", "vda"]),
    "passthrough-disk": ({"devices_extra": LUN}, ["sda"]),
    "passthrough-device": ({"devices_extra": PCI}, ["host"]),
    "cdrom-with-media": (
        {"devices_extra": CDROM.format(source=f"<source file='{IMAGES}/x.iso'/>")},
        ["eject", "hda"],
    ),
}


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_that_cannot_be_protected(world, name):
    options, says = DEVICES[name]
    redefine(world, **options)
    refused(world, *PROTECT, says=says)


def test_an_empty_cdrom_is_accepted(world):
    redefine(world, devices_extra=CDROM.format(source=""))
    before = state_of(world)
    done = world.havm(world.a, *PROTECT, "--dry-run")
    assert done.stdout.strip(), "a dry run shows its plan"
    assert state_of(world) == before


def test_a_running_vm_needs_restart(world):
    world.a.virsh("start", "--paused", CASE)
    refused(world, *PROTECT, says=["running", "restart"])


def test_unprotect_of_a_vm_that_is_not_protected(world):
    refused(world, "unprotect", CASE, says=[CASE, "not protected"])


@pytest.mark.parametrize(
    "argv",
    [["fly"], ["protect"], ["protect", CASE], ["dominfo", CASE, "--fly"], ["wait", CASE, "happy"]],
    ids=lambda argv: "-".join(argv),
)
def test_malformed_command(world, argv):
    refused(world, *argv, says=[])


def test_no_permission(world):
    done = world.a.exec(
        [
            "setpriv",
            "--reuid",
            "nobody",
            "--regid",
            "nogroup",
            "--clear-groups",
            world.product.bin / "havm",
            "list",
        ],
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith("error: "), (done.stdout, done.stderr)
    assert "permission" in done.stderr.lower(), done.stderr


def test_havmd_is_not_there(make_lab):
    scene = Scene(make_lab().up())
    done = scene.havm(scene.a, "list", check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "havmd" in done.stderr, (
        done.stdout,
        done.stderr,
    )


def daemon_refuses(scene, config: dict | str, says: list[str]) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    path = write(scene, "cluster.json", text)
    done = scene.a.exec([scene.product.bin / "havmd", "--config", path], check=False, timeout_s=30)
    assert done.returncode == 1, f"exit status {done.returncode}: {done.stdout}{done.stderr}"
    for part in says:
        assert (
            part.lower() in (done.stderr + done.stdout).lower()
        ), f"'{part}' is not in: {done.stderr}{done.stdout}"


def changed(scene, change) -> dict:
    config = json.loads(json.dumps(scene.product.configuration()))
    change(config)
    return config


CONFIGS = {
    "unknown-key": (lambda config: config.update(witnes={"address": "10.10.2.9"}), ["witnes"]),
    "no-nodes": (lambda config: config.pop("nodes"), ["nodes"]),
    "bad-address": (
        lambda config: config["nodes"]["a"]["links"].append("10.10.2.300"),
        ["10.10.2.300"],
    ),
    "bad-profile": (lambda config: config["timing"].update(profile="hurried"), ["profile"]),
    "not-this-host": (lambda config: config["nodes"].update(c=config["nodes"].pop("a")), ["a"]),
    "impossible-timing": (
        lambda config: config["timing"].update(peer_timeout="100ms", lease="50ms"),
        ["lease"],
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_havmd_refuses_a_bad_configuration(shared_scene, name):
    change, says = CONFIGS[name]
    daemon_refuses(shared_scene, changed(shared_scene, change), says)


def test_havmd_refuses_malformed_json(shared_scene):
    daemon_refuses(shared_scene, '{"version": 1', ["cluster.json"])


def test_havmd_without_certificates(make_lab):
    scene = Scene(make_lab().up())
    says = ["/etc/havm/tls/ca.pem", "havm cluster-init", "havm node-join"]
    daemon_refuses(scene, scene.product.configuration(), says)
    # plain TCP is a choice that must be spelled out, and is told
    plain = {**scene.product.configuration(), "security": {"transport": "plain"}}
    path = write(scene, "plain.json", json.dumps(plain))
    daemon = scene.a.spawn([str(scene.product.bin / "havmd"), "--config", path], "plain")
    try:
        log = scene.a.dir / "log" / "plain.log"
        wait_until("havmd to warn", lambda: "for measurements only" in log.read_text(), 10)
        assert daemon.poll() is None, log.read_text()
    finally:
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()


def test_havmd_with_the_certificate_of_the_other_node(make_lab):
    scene = Scene(make_lab().up())
    scene.product.join_nodes()
    for name in ("node.pem", "node.key"):
        stolen = scene.b.path(f"/etc/havm/tls/{name}").read_bytes()
        scene.a.path(f"/etc/havm/tls/{name}").write_bytes(stolen)
    says = ["that of node b", "this is node a"]
    daemon_refuses(scene, scene.product.configuration(), says)


def test_havmd_whose_port_is_in_use(make_lab):
    scene = Scene(make_lab().up())
    listener = scene.a.spawn(
        [
            "/usr/bin/python3",
            "-c",
            "import socket, time; s = socket.socket(); "
            "s.bind(('0.0.0.0', 7602)); s.listen(); time.sleep(600)",
        ],
        "listener",
    )
    try:
        wait_until("the listener", lambda: ":7602" in scene.a.exec(["ss", "-ltn"]).stdout, 10)
        scene.product.join_nodes()
        daemon_refuses(scene, scene.product.configuration(), ["7602"])
    finally:
        listener.send_signal(signal.SIGKILL)
        listener.wait()


def test_witness_whose_port_is_in_use(shared_scene):
    scene = shared_scene
    argv = [
        "ip",
        "netns",
        "exec",
        scene.lab.network.namespaces["w"],
        str(scene.product.bin / "havm-witness"),
        "--listen",
        f"{ADDRESSES['lan']['w']}:{WITNESS_PORT}",
        "--db",
        str(scene.lab.dir / "second.db"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and str(WITNESS_PORT) in done.stderr, (
        done.returncode,
        done.stdout,
        done.stderr,
    )
