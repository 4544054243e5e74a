#!/usr/bin/python3
"""The job of conformance is: talk to an engine's NBD socket by libnbd, as the protocol's document
says a client may, and check every answer. Usage: conformance.py URI. It writes on the disk. Ends
with 0 and a count, or with the first check that failed.
"""

import errno
import random
import sys

import nbd

MIB = 1 << 20
checks = 0


def check(condition, what):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"conformance: {what}")


def refused(what, number, call):
    try:
        call()
    except nbd.Error as error:
        check(error.errnum == number, f"{what}: errno {error.errnum}, expected {number}")
    else:
        check(False, f"{what} was not refused")


def connect(uri, *contexts, strict=True):
    h = nbd.NBD()
    for context in contexts:
        h.add_meta_context(context)
    if not strict:
        h.set_strict_mode(0)
    h.connect_uri(uri)
    return h


def handshake(uri):
    h = connect(uri, "base:allocation")
    check(h.get_protocol() == "newstyle-fixed", "not the fixed newstyle")
    check(h.get_structured_replies_negotiated(), "no structured replies")
    check(h.can_meta_context("base:allocation"), "no base:allocation")
    check(not h.is_read_only() and h.can_flush() and h.can_fua(), "flush or FUA is missing")
    check(h.can_trim() and h.can_zero() and h.can_multi_conn(), "a capability is missing")
    check(h.get_block_size(nbd.SIZE_MINIMUM) in (512, 4096), "an odd minimum block size")
    size = h.get_size()
    h.shutdown()
    plain = nbd.NBD()
    plain.set_request_structured_replies(False)
    plain.connect_uri(uri)
    check(plain.get_size() == size, "another size without structured replies")
    check(plain.pread(4096, 0) is not None, "no simple replies")
    plain.shutdown()
    listed = nbd.NBD()
    listed.set_opt_mode(True)
    listed.connect_uri(uri)
    names = []
    listed.opt_list(lambda name, description: names.append(name))
    check(names == ["vda"], f"the exports are {names}")
    listed.set_export_name("no-such-export")
    refused("a wrong export", errno.ENOENT, listed.opt_go)
    listed.set_export_name("vda")
    listed.opt_go()  # a refusal does not end the negotiation
    check(listed.get_size() == size, "another size after a refusal")
    listed.shutdown()
    nameless = uri.replace(":///vda?", ":///nobody?")
    refused("a connection to a wrong export", errno.ENOENT, lambda: connect(nameless))
    return size


def data(uri):
    h = connect(uri)
    pattern = bytes(range(256)) * 4096
    h.pwrite(pattern, MIB)
    check(h.pread(MIB, MIB) == pattern, "a write is not read again")
    h.pwrite(b"\x5a" * 4096, MIB + 8192, nbd.CMD_FLAG_FUA)
    check(h.pread(4096, MIB + 8192) == b"\x5a" * 4096, "a FUA write is not read again")
    h.flush()
    h.zero(65536, MIB + 65536)
    check(h.pread(65536, MIB + 65536) == bytes(65536), "what was zeroed is not zero")
    h.zero(65536, MIB + 262144, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    check(h.pread(65536, MIB + 262144) == bytes(65536), "zeroed without holes: not zero")
    h.trim(65536, MIB + 131072)
    first = h.pread(65536, MIB + 131072)
    check(first == h.pread(65536, MIB + 131072), "what was trimmed changes")
    check(h.pread(4096, MIB + 196608) == pattern[:4096], "a neighbour of what was trimmed changed")
    largest = 32 * MIB
    if h.get_size() >= largest:
        check(len(h.pread(largest, 0)) == largest, "the largest read fails")
    pieces = []
    h.pread_structured(MIB, MIB, lambda buffer, at, status, error: pieces.append((at, len(buffer))))
    check(sum(length for _, length in pieces) == MIB, "a structured read does not cover its range")
    h.shutdown()


def errors(uri, size):
    h = connect(uri, strict=False)
    block = b"\x01" * 4096
    refused("a write beyond the end", errno.ENOSPC, lambda: h.pwrite(block, size))
    refused("a write across the end", errno.ENOSPC, lambda: h.pwrite(block, size - 512))
    refused("a read beyond the end", errno.EINVAL, lambda: h.pread(4096, size))
    refused("zeroes beyond the end", errno.ENOSPC, lambda: h.zero(4096, size))
    refused("a trim beyond the end", errno.EINVAL, lambda: h.trim(4096, size))
    refused("a read at an odd place", errno.EINVAL, lambda: h.pread(512, 1))
    refused("a write of an odd length", errno.EINVAL, lambda: h.pwrite(b"\x01" * 100, 0))
    check(h.pread(512, size - 512) is not None, "the connection does not survive its errors")
    h.shutdown()


def allocation(uri, size):
    h = connect(uri, "base:allocation")
    at = 0
    while at < size:
        extents = []
        h.block_status(
            min(size - at, 1 << 30), at,
            lambda context, offset, entries, error: extents.extend(entries),
        )  # fmt: skip
        check(extents, "no extents")
        for length, flags in zip(extents[::2], extents[1::2]):
            check(length > 0 and length % 512 == 0, f"an extent of {length} bytes")
            if flags & nbd.STATE_ZERO and at < size:
                part = min(length, MIB, size - at)
                check(h.pread(part, at) == bytes(part), f"data at {at}, where zeroes are told")
            at += length
    h.shutdown()


def many_at_once(uri, size):
    first, second = connect(uri), connect(uri)
    rng = random.Random(7)
    blocks = rng.sample(range(size // 4096), 200)
    waiting = []
    for number, block in enumerate(blocks):
        h = (first, second)[number % 2]
        buffer = nbd.Buffer.from_bytearray(bytearray([number % 251 + 1]) * 4096)
        waiting.append((h, h.aio_pwrite(buffer, block * 4096)))
    for h, cookie in waiting:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
    first.flush()
    for number, block in enumerate(blocks):
        h = (second, first)[number % 2]  # what one connection wrote the other one reads
        expected = bytes([number % 251 + 1]) * 4096
        check(h.pread(4096, block * 4096) == expected, f"block {block} is not what was written")
    first.shutdown()
    second.shutdown()


def rude_clients(uri):
    h = connect(uri)
    buffer = nbd.Buffer.from_bytearray(bytearray(MIB))
    for number in range(8):
        h.aio_pread(buffer, number * 4096)
    del h  # away, with answers under way
    check(connect(uri).pread(512, 0) is not None, "the server does not survive a rude client")


def main():
    uri = sys.argv[1]
    size = handshake(uri)
    data(uri)
    errors(uri, size)
    allocation(uri, size)
    many_at_once(uri, size)
    rude_clients(uri)
    print(f"checks={checks}")


main()
