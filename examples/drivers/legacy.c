/* A driver as C functions: legacy mode, four levels, 4 KiB pages, invalidations by registers.
 *
 *     cc -shared -fPIC -DFORGET -o legacy.so examples/drivers/legacy.c
 *     vtd drive library:./legacy.so --profile client --seconds 30
 *
 * With FORGET it does not invalidate the IOTLB when pages go, which is found in a moment; with
 * FORGET_FLUSH it does not flush cache lines, which --stores-wait finds.
 */
#include <stdint.h>
#include <stdlib.h>

struct vtd_host {
    void *context;
    void (*read)(void *context, uint64_t address, void *data, uint64_t length);
    void (*write)(void *context, uint64_t address, const void *data, uint64_t length);
    uint64_t (*read_register)(void *context, uint32_t offset, uint32_t size);
    void (*write_register)(void *context, uint32_t offset, uint32_t size, uint64_t value);
    uint64_t memory_start, memory_end;
    void (*flush)(void *context, uint64_t address, uint64_t length); /* of cache lines */
};

enum { DOMAINS = 16, FUNCTIONS = 65536, BUSES = 256 };

struct driver {
    struct vtd_host host;
    uint64_t next, root, contexts[BUSES], tables[DOMAINS];
    uint8_t domain_of[FUNCTIONS];
    uint32_t iotlb;
};

static uint64_t get(struct driver *d, uint64_t address)
{
    uint64_t value;
    d->host.read(d->host.context, address, &value, sizeof value);
    return value;
}

static void store(struct driver *d, uint64_t address, const void *data, uint64_t length)
{
    d->host.write(d->host.context, address, data, length);
#ifndef FORGET_FLUSH
    d->host.flush(d->host.context, address, length);
#endif
}

static void put(struct driver *d, uint64_t address, uint64_t value)
{
    store(d, address, &value, sizeof value);
}

static void reg(struct driver *d, uint32_t offset, uint32_t size, uint64_t value)
{
    d->host.write_register(d->host.context, offset, size, value);
}

static uint64_t page(struct driver *d)
{
    static const uint8_t zero[4096];
    uint64_t address = d->next;
    d->next += 4096;
    store(d, address, zero, sizeof zero);
    return address;
}

void *driver_new(const struct vtd_host *host)
{
    struct driver *d = calloc(1, sizeof *d);
    d->host = *host;
    d->next = host->memory_start;
    return d;
}

int64_t driver_reset(struct driver *d)
{
    d->iotlb = (d->host.read_register(d->host.context, 0x10, 8) >> 8 & 0x3FF) * 16;
    d->root = page(d);
    reg(d, 0x20, 8, d->root);
    reg(d, 0x18, 4, 1u << 30);
    reg(d, 0x28, 8, 1ull << 63 | 1ull << 61);
    reg(d, d->iotlb + 8, 8, 1ull << 63 | 1ull << 60);
    reg(d, 0x18, 4, 1u << 31);
    return 0;
}

static void forget(struct driver *d, uint32_t domain)
{
    reg(d, d->iotlb + 8, 8, 1ull << 63 | 2ull << 60 | 3ull << 48 | (uint64_t)domain << 32);
}

static uint64_t context(struct driver *d, uint32_t source_id)
{
    uint32_t bus = source_id >> 8;
    if (!d->contexts[bus]) {
        d->contexts[bus] = page(d);
        put(d, d->root + bus * 16, d->contexts[bus] | 1);
    }
    return d->contexts[bus] + (source_id & 0xFF) * 16;
}

int64_t driver_attach(struct driver *d, uint32_t source_id, uint32_t domain)
{
    if (domain >= DOMAINS)
        return -1;
    if (!d->tables[domain])
        d->tables[domain] = page(d);
    put(d, context(d, source_id) + 8, (uint64_t)domain << 8 | 2);
    put(d, context(d, source_id), d->tables[domain] | 1);
    d->domain_of[source_id] = domain;
    return 0;
}

int64_t driver_detach(struct driver *d, uint32_t source_id)
{
    uint64_t domain = d->domain_of[source_id];
    put(d, context(d, source_id), 0);
    reg(d, 0x28, 8, 1ull << 63 | 3ull << 61 | (uint64_t)source_id << 16 | domain);
    forget(d, domain);
    return 0;
}

static uint64_t entry(struct driver *d, uint32_t domain, uint64_t address)
{
    uint64_t table = d->tables[domain];
    for (int shift = 39; shift > 12; shift -= 9) {
        uint64_t at = table + (address >> shift & 511) * 8;
        if (!get(d, at))
            put(d, at, page(d) | 3);
        table = get(d, at) & ~0xFFFull;
    }
    return table + (address >> 12 & 511) * 8;
}

int64_t driver_map(struct driver *d, uint32_t domain, uint64_t address, uint64_t physical,
                   uint64_t length, uint32_t access)
{
    for (uint64_t at = 0; at < length; at += 4096)
        put(d, entry(d, domain, address + at), (physical + at) | access);
    return 0;
}

int64_t driver_unmap(struct driver *d, uint32_t domain, uint64_t address, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += 4096)
        put(d, entry(d, domain, address + at), 0);
#ifdef CRASH
    abort();
#endif
#ifndef FORGET
    forget(d, domain);
#endif
    return 0;
}

int64_t driver_protect(struct driver *d, uint32_t domain, uint64_t address, uint64_t length,
                       uint32_t access)
{
    for (uint64_t at = 0; at < length; at += 4096) {
        uint64_t where = entry(d, domain, address + at);
        put(d, where, (get(d, where) & ~3ull) | access);
    }
    forget(d, domain);
    return 0;
}
