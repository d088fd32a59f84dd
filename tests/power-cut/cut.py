#!/usr/bin/env python3
"""The disk that a power cut leaves: cut.py BEFORE LOG SEED AFTER.

LOG is what qemu's blklogwrites driver wrote (the format of the kernel's dm-log-writes): all writes and flushes of the guest
in order. AFTER becomes BEFORE with everything up to the last flush, and of the writes behind it each 512-byte sector or not,
as the seed has it. A write with FUA is not dropped.
"""

import random
import shutil
import struct
import sys

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


def entries(log):
    magic, version, count, sector_bytes = struct.unpack("<QQQL", log.read(28))
    assert magic == MAGIC and version == 1, "not a log of writes"
    at = sector_bytes
    while True:
        log.seek(at)
        head = log.read(32)
        if len(head) < 32:
            return
        sector, sectors, flags, data_bytes = struct.unpack("<QQQQ", head)
        if sectors == 0 and flags == 0 and data_bytes == 0:
            return
        at += sector_bytes
        data = b""
        if not flags & DISCARD:
            data = log.read(0) if sectors == 0 else None
            log.seek(at)
            data = log.read(sectors * sector_bytes)
            # Cut off in the middle of being logged: the guest never heard that it was done.
            if len(data) < sectors * sector_bytes:
                return
            at += sectors * sector_bytes
        yield sector * sector_bytes, sectors * sector_bytes, flags, data


def main(before, log, seed, after):
    pick = random.Random(int(seed))
    shutil.copyfile(before, after)
    with open(log, "rb") as logged:
        all_entries = list(entries(logged))
    last_flush = max((i for i, e in enumerate(all_entries) if e[2] & FLUSH), default=-1)
    kept = dropped = 0
    with open(after, "r+b") as disk:
        for i, (at, size, flags, data) in enumerate(all_entries):
            if flags & DISCARD:
                if i <= last_flush:
                    disk.seek(at)
                    disk.write(bytes(size))
                continue
            if i < last_flush or flags & FUA:
                disk.seek(at)
                disk.write(data)
                continue
            share = pick.random()
            for sector in range(0, len(data), 512):
                if pick.random() < share:
                    disk.seek(at + sector)
                    disk.write(data[sector : sector + 512])
                    kept += 1
                else:
                    dropped += 1
    flushes = sum(1 for e in all_entries if e[2] & FLUSH)
    print(
        f"{len(all_entries)} writes, {flushes} flushes; behind the last one {kept} sectors kept, {dropped} dropped",
        file=sys.stderr,
    )


main(*sys.argv[1:])
