/* A loader of the kit for UEFI: the image lies behind it, and is started as by multiboot.

   Memory that firmware keeps for itself is not in the map that the payload gets. Nothing is written
   before it is sure that the image's place is free. */
#include "format.h"

#define at(type, address) (*(volatile type *)(uintptr_t)(address))
#define UEFI __attribute__((ms_abi))
enum { LOADER_DATA = 2, ANY_PAGES = 0, MAP_PAGES = 16, LOAD_ERROR = 1, TRIES = 4, HAS_MAP = 1 << 6 };
#define ERROR(number) (1ull << 63 | (number))

struct descriptor {
    uint32_t type, padding;
    uint64_t start, virtual, pages, attributes;
};
struct configuration {
    uint64_t name[2], table;
};
struct console {
    void *reset;
    uint64_t (UEFI *print)(struct console *, const uint16_t *);
};
struct services {
    uint8_t header[24];
    void *priority[2];
    uint64_t (UEFI *allocate)(uint32_t, uint32_t, uint64_t, uint64_t *);
    void *free;
    uint64_t (UEFI *map)(uint64_t *, void *, uint64_t *, uint64_t *, uint32_t *);
    void *others[21];
    uint64_t (UEFI *exit)(void *, uint64_t);
};
struct system {
    uint8_t header[24];
    void *vendor, *revision, *input_handle, *input, *output_handle;
    struct console *output;
    void *error_handle, *error, *runtime;
    struct services *services;
    uint64_t tables;
    struct configuration *configuration;
};
struct entry { /* of a multiboot memory map */
    uint32_t size;
    uint64_t start, length;
    uint32_t type;
} __attribute__((packed));

extern const struct header kit;
extern const char leave[], leave_end[];
static uint64_t map, size, step;

static void copy(uint64_t to, uint64_t from, uint64_t length)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}

/* Code and data of loaders and of boot services, and what nobody has. */
static int usable(const struct descriptor *each)
{
    return (each->type >= 1 && each->type <= 4) || each->type == 7;
}

static const struct descriptor *next(const struct descriptor *each)
{
    uint64_t place = each ? (uint64_t)each + step : map;
    return place < map + size ? (const struct descriptor *)place : 0;
}

/* Whether all of a range is usable: firmware lists memory in any order. */
static int is_free(uint64_t start, uint64_t end)
{
    const struct descriptor *each = 0;
    while (start < end && (each = next(each)))
        if (usable(each) && each->start <= start && start < each->start + (each->pages << 12)) {
            start = each->start + (each->pages << 12);
            each = 0;
        }
    return start >= end;
}

/* The root pointer of ACPI 2.0, or else of 1.0, where 32 bits reach it. */
static uint32_t root(const struct system *system)
{
    uint32_t found = 0;
    for (uint64_t index = 0; index < system->tables; index++) {
        const struct configuration *each = &system->configuration[index];
        int new = each->name[0] == 0x11d3e4f18868e871 && each->name[1] == 0x81883cc7800022bc;
        int old = each->name[0] == 0x11d32d88eb9d2d30 && each->name[1] == 0x4dc13f279000169a;
        if ((new || (old && !found)) && !(each->table >> 32))
            found = each->table;
    }
    return found;
}

/* The information of multiboot: the memory map, neighbours joined. It ends before `limit`. */
static void inform(uint64_t information, uint64_t limit)
{
    struct entry *first = (struct entry *)(information + 64), *last = first - 1;
    const struct descriptor *each = 0;
    while ((each = next(each)) && (uint64_t)(last + 2) <= limit) {
        if (!usable(each))
            continue;
        if (last >= first && last->start + last->length == each->start)
            last->length += each->pages << 12;
        else
            *++last = (struct entry){20, each->start, each->pages << 12, 1};
    }
    at(uint32_t, information) = HAS_MAP;
    at(uint32_t, information + 44) = (uint64_t)(last + 1) - (uint64_t)first;
    at(uint32_t, information + 48) = (uint64_t)first;
}

/* Tables that map the first 16 GiB as they are, as many levels as the processor uses now. */
static void map_memory(uint64_t tables)
{
    uint64_t levels, top = tables;
    __asm__ volatile("mov %%cr4, %0" : "=r"(levels));
    for (uint64_t index = 0; index < 16 * 512; index++)
        at(uint64_t, tables + 0x2000 + 8 * index) = index << 21 | 0x83;
    for (uint64_t index = 0; index < 1024; index++)
        at(uint64_t, tables + 8 * index) = 0;
    for (uint64_t index = 0; index < 16; index++)
        at(uint64_t, tables + 0x1000 + 8 * index) = (tables + 0x2000 + (index << 12)) | 3;
    at(uint64_t, tables) = (tables + 0x1000) | 3;
    if (levels >> 12 & 1) {
        top = tables + SCRATCH_ADMIN;
        for (uint64_t index = 0; index < 512; index++)
            at(uint64_t, top + 8 * index) = 0;
        at(uint64_t, top) = tables | 3;
    }
    __asm__ volatile("cli; mov %0, %%cr3" : : "r"(top) : "memory");
}

UEFI uint64_t load(void *handle, struct system *system)
{
    uint64_t base = kit.load_address, end = kit.scratch + SCRATCH_SIZE, key, failed = 1;
    uint64_t behind = (kit.load_end + 15) & ~15ull, information = behind + 256;
    uint32_t version, acpi = root(system);
    if (system->services->allocate(ANY_PAGES, LOADER_DATA, MAP_PAGES, &map))
        return ERROR(LOAD_ERROR);
    for (int try = 0; failed && try < TRIES; try++) { /* the map may change until it is used */
        size = MAP_PAGES << 12;
        if (system->services->map(&size, (void *)map, &key, &step, &version))
            return ERROR(LOAD_ERROR);
        uint64_t source = (uint64_t)&kit, length = kit.load_end - base;
        if (!is_free(base, end) || (source < end && base < source + length)) {
            system->output->print(system->output, u"the kit's memory is in use\r\n");
            return ERROR(LOAD_ERROR);
        }
        failed = system->services->exit(handle, key);
    }
    if (failed)
        return failed;
    copy(base, (uint64_t)&kit, kit.load_end - base);
    ((struct header *)base)->rsdp = acpi;
    inform(information, kit.scratch);
    copy(behind, (uint64_t)leave, leave_end - leave);
    map_memory(kit.scratch);
    ((UEFI void (*)(uint64_t, uint64_t, uint64_t))behind)(((struct header *)base)->entry, information, behind);
    __builtin_unreachable();
}
