/* What the machine is: memory, the DMAR table, units and PCI functions. Nothing is changed. */
#include "kit.h"

extern const uint32_t boot_magic, boot_information;
enum { LOADED_BY_MULTIBOOT = 0x2badb002, HAS_MAP = 1 << 6, CONFIGURATION = 64, UNIT_SIZE = 256, NVME = 0x010802 };

static int equal(uint64_t address, const char *text, int length)
{
    for (int index = 0; index < length; index++)
        if (at(char, address + index) != text[index])
            return 0;
    return 1;
}

static void memory(void)
{
    if (boot_magic != LOADED_BY_MULTIBOOT || !(at(uint32_t, boot_information) & HAS_MAP))
        return;
    uint64_t next = at(uint32_t, boot_information + 48), end = next + at(uint32_t, boot_information + 44);
    for (; next < end; next += at(uint32_t, next) + 4)
        frame(KIND_MEMORY, 0, 0, (void *)(next + 4), 20);
}

/* The table behind a root table with pointers of so many bytes; 0 without one. */
static uint64_t table_in(uint64_t root, int size)
{
    uint32_t length = at(uint32_t, root + 4);
    for (uint64_t next = root + 36; next + size <= root + length; next += size) {
        uint64_t table = size == 8 ? at(uint64_t, next) : at(uint32_t, next);
        if (equal(table, "DMAR", 4))
            return table;
    }
    return 0;
}

static uint64_t dmar(void)
{
    uint64_t place = image.rsdp ? image.rsdp : 0xe0000;
    while (!equal(place, "RSD PTR ", 8)) {
        place += 16;
        if (image.rsdp || place == 0x100000)
            return 0;
    }
    uint64_t found = at(uint8_t, place + 15) ? table_in(at(uint64_t, place + 24), 8) : 0;
    return found ? found : table_in(at(uint32_t, place + 16), 4);
}

static void units(uint64_t table)
{
    uint32_t registers[UNIT_SIZE / 4], length = at(uint32_t, table + 4);
    frame(KIND_TABLE, 0, 0, (void *)table, length);
    for (uint64_t next = table + 48; next + 16 <= table + length; next += at(uint16_t, next + 2)) {
        if (at(uint16_t, next + 2) < 4)
            return;
        if (at(uint16_t, next)) /* no DRHD */
            continue;
        uint64_t base = at(uint64_t, next + 8);
        if (base >> 34) /* not mapped */
            continue;
        for (unsigned index = 0; index < UNIT_SIZE / 4; index++)
            registers[index] = at(uint32_t, base + 4 * index);
        frame(KIND_UNIT, (next - table), 0, registers, sizeof registers);
    }
}

/* CAP of an NVMe controller whose registers can be seen. */
static void controller(uint32_t number, const uint32_t *space)
{
    uint64_t base = (space[4] & ~0xfu) | (space[4] & 4 ? (uint64_t)space[5] << 32 : 0);
    if (space[2] >> 8 != NVME || !(space[1] & 2) || !base || !reach(base))
        return;
    uint64_t capabilities = at(uint64_t, base);
    frame(KIND_CONTROLLER, number, 0, &capabilities, sizeof capabilities);
}

static void functions(void)
{
    uint32_t space[CONFIGURATION];
    for (unsigned bus = 0; bus < 256; bus++)
        for (unsigned devfn = 0; devfn < 256; devfn++) {
            if ((config_read(bus, devfn, 0) & 0xffff) == 0xffff) {
                if (!(devfn & 7))
                    devfn |= 7;
                continue;
            }
            for (unsigned index = 0; index < CONFIGURATION; index++)
                space[index] = config_read(bus, devfn, 4 * index);
            frame(KIND_FUNCTION, bus << 8 | devfn, 0, space, sizeof space);
            controller(bus << 8 | devfn, space);
            if (!(devfn & 7) && !(space[3] >> 16 & 0x80))
                devfn |= 7;
        }
}

void probe(void)
{
    uint64_t table = dmar();
    memory();
    if (table)
        units(table);
    functions();
    frame(KIND_END, 0, 0, 0, 0);
}
