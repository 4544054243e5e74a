"""What somebody reads who listens on the links between the hosts."""

import json

import pytest

# Every packet of a replication session for some seconds: how many there were, and how many began a
# frame in clear.
LISTENER = """
import json, socket, struct, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
wire.settimeout(1)
end = time.monotonic() + 5
packets = frames = 0
while time.monotonic() < end:
    try:
        packet = wire.recv(65535)
    except TimeoutError:
        continue
    header = (packet[0] & 15) * 4
    if packet[9] != socket.IPPROTO_TCP:
        continue
    ports = struct.unpack_from("!HH", packet, header)
    data = packet[header + (packet[header + 12] >> 4) * 4:]
    if not data or not any(7700 <= port <= 7899 for port in ports):
        continue
    packets += 1
    frames += b"HVRP" in data
print(json.dumps({"packets": packets, "frames": frames}))
"""


# Plain TCP shows that this listener would see frames.
@pytest.mark.parametrize("transport", ["tls", "plain"])
def test_frames_are_readable_on_plain_tcp_only(make_scene, transport):
    scene = make_scene(transport=transport).protect_and_run()
    nodes = scene.product.json(scene.a, "node-list")
    assert nodes["replication"]["transport"] == transport and not nodes["replication"]["problem"]
    heard = json.loads(scene.a.exec(["/usr/bin/python3", "-c", LISTENER], timeout_s=30).stdout)
    assert heard["packets"] > 20, heard
    assert (heard["frames"] > 0) == (transport == "plain"), heard
    scene.stamps(5, since_ns=0, host=scene.a)
