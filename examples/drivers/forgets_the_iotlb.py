"""A driver that forgets the IOTLB when a function is detached: wrong on purpose.

``vtd drive "command:python3 examples/drivers/forgets_the_iotlb.py" --profile client`` finds that in
a moment. It speaks line-JSON and uses nothing of the project: legacy mode, a table of 4 levels for
each domain, 4 KiB pages, and registers for invalidations (VT-d 6.5.1). ``FORGET=0`` in its
environment mends it.
"""

import json
import os
import sys

FORGET = os.environ.get("FORGET", "1") == "1"
LEVELS = 39, 30, 21, 12


def ask(**message):
    """What the harness answers."""
    print(json.dumps(message), flush=True)
    return json.loads(sys.stdin.readline())["value"]


def read64(address):
    return int.from_bytes(bytes.fromhex(ask(read=[address, 8])), "little")


def write64(address, value):
    ask(write=[address, value.to_bytes(8, "little").hex()])


def reg(offset, size, value):
    ask(reg_write=[offset, size, value])


class Driver:
    def reset(self, memory_start, memory_end):
        self.free = iter(range(memory_start, memory_end, 4096))
        self.roots, self.domain_of, self.contexts = {}, {}, {}
        self.iotlb = (ask(reg_read=[0x10, 8]) >> 8 & 0x3FF) * 16
        self.root = self.page()
        reg(0x20, 8, self.root)
        reg(0x18, 4, 1 << 30)
        reg(0x28, 8, 1 << 63 | 1 << 61)
        reg(self.iotlb + 8, 8, 1 << 63 | 1 << 60)
        reg(0x18, 4, 1 << 31)

    def page(self):
        page = next(self.free)
        ask(write=[page, bytes(4096).hex()])
        return page

    def context(self, source_id):
        bus = source_id >> 8
        if bus not in self.contexts:
            self.contexts[bus] = self.page()
            write64(self.root + bus * 16, self.contexts[bus] | 1)
        return self.contexts[bus] + (source_id & 0xFF) * 16

    def attach(self, source_id, domain):
        if domain not in self.roots:
            self.roots[domain] = self.page()
        at = self.context(source_id)
        write64(at + 8, domain << 8 | 2)
        write64(at, self.roots[domain] | 1)
        self.domain_of[source_id] = domain

    def detach(self, source_id):
        domain = self.domain_of.pop(source_id)
        write64(self.context(source_id), 0)
        reg(0x28, 8, 1 << 63 | 3 << 61 | source_id << 16 | domain)
        if not FORGET:
            self.forget(domain)

    def forget(self, domain):
        reg(self.iotlb + 8, 8, 1 << 63 | 2 << 60 | domain << 32)

    def entry(self, domain, address):
        table = self.roots[domain]
        for shift in LEVELS[:-1]:
            at = table + (address >> shift & 511) * 8
            if not read64(at):
                write64(at, self.page() | 3)
            table = read64(at) & ~0xFFF
        return table + (address >> 12 & 511) * 8

    def map(self, domain, address, physical, length, access):
        for offset in range(0, length, 4096):
            write64(self.entry(domain, address + offset), physical + offset | access)

    def unmap(self, domain, address, length):
        for offset in range(0, length, 4096):
            write64(self.entry(domain, address + offset), 0)
        self.forget(domain)

    def protect(self, domain, address, length, access):
        for offset in range(0, length, 4096):
            at = self.entry(domain, address + offset)
            write64(at, read64(at) & ~3 | access)
        self.forget(domain)


driver = Driver()
for line in sys.stdin:
    request = json.loads(line)
    method = getattr(driver, request.pop("op"), None)
    if method is None:
        print(json.dumps({"error": "not for this driver"}), flush=True)
    else:
        print(json.dumps({"done": method(**request)}), flush=True)
