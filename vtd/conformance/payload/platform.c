/* Ports, time, the processor and its interrupts, and the way out. */
#include "kit.h"

enum {
    APIC = 0xfee00000, APIC_EOI = 0xb0, APIC_TPR = 0x80, APIC_SPURIOUS = 0xf0, APIC_SERVICE = 0x100,
    APIC_TIMER = 0x320,
    SPURIOUS = 0x2f, MASKED = 1 << 16,
};

struct gate {
    uint16_t low, selector, kind, middle;
    uint32_t high, reserved;
} __attribute__((packed));

extern const char interrupt_entries[];
static struct interrupts seen;

static uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint32_t in32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void select(uint8_t bus, uint8_t devfn, uint8_t offset)
{
    out32(0xcf8, 1u << 31 | bus << 16 | devfn << 8 | offset);
}

uint32_t config_read(uint8_t bus, uint8_t devfn, uint8_t offset)
{
    select(bus, devfn, offset);
    return in32(0xcfc);
}

void config_write(uint8_t bus, uint8_t devfn, uint8_t offset, uint32_t value)
{
    select(bus, devfn, offset);
    out32(0xcfc, value);
}

static uint64_t now(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* MSI on, with a 64-bit address. */
void message_to(const struct device *device, uint64_t address, uint32_t data)
{
    uint8_t bus = device->bus, devfn = device->devfn, message = device->message;
    config_write(bus, devfn, message + 4, address);
    config_write(bus, devfn, message + 8, address >> 32);
    config_write(bus, devfn, message + 12, data);
    config_write(bus, devfn, message, 1u << 16);
}

/* A hundredth of the time that a step has. */
uint64_t moment(void)
{
    return now() + image.limit * 10000ull;
}

uint64_t deadline(void)
{
    return now() + image.limit * 1000000ull;
}

int late(uint64_t when)
{
    __asm__ volatile("pause");
    return (int64_t)(now() - when) > 0;
}

void copy(uint64_t to, uint64_t from, uint64_t length)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}

void clear(uint64_t to, uint64_t length)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(0) : "memory");
}

/* The table below an entry, made from spare pages where there is none; 0 if they are used up. */
static uint64_t *below(uint64_t *entry)
{
    static uint64_t used = SCRATCH_MORE_TABLES;
    if (!(*entry & 1)) {
        if (used == SCRATCH_SIZE)
            return 0;
        clear(image.scratch + used, PAGE);
        *entry = (image.scratch + used) | 3;
        used += PAGE;
    }
    return (uint64_t *)(*entry & ~0xfffull);
}

/* The address, with 2 MiB around it mapped; 0 if it can't be. */
uint64_t reach(uint64_t address)
{
    uint64_t *table = (uint64_t *)(image.scratch + SCRATCH_PAGE_TABLES);
    for (int shift = 39; shift > 21 && table; shift -= 9)
        table = below(&table[address >> shift & 0x1ff]);
    if (!table || address >> 48)
        return 0;
    table[address >> 21 & 0x1ff] = (address & ~0x1fffffull) | 0x83;
    return address;
}

/* Called by every entry of the interrupt table. A message may have a vector of the processor's own:
   the local APIC has that in service then. */
void interrupt(uint64_t vector)
{
    if (vector < 32 && !(at(uint32_t, APIC + APIC_SERVICE) >> vector & 1)) {
        /* the processor complains: nothing here can be trusted any more */
        frame(KIND_PROBLEM, vector, 0, 0, 0);
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    if (vector == SPURIOUS)
        return;
    if (seen.count < MOST_VECTORS)
        seen.vectors[seen.count++] = vector;
    at(uint32_t, APIC + APIC_EOI) = 0;
}

void interrupts_on(void)
{
    struct gate *table = (struct gate *)(image.scratch + SCRATCH_INTERRUPT_TABLE);
    struct { uint16_t limit; uint64_t base; } __attribute__((packed)) where = {0xfff, (uint64_t)table};
    for (int vector = 0; vector < 256; vector++) {
        uint64_t entry = (uint64_t)interrupt_entries + 16 * vector;
        table[vector] = (struct gate){entry, 8, 0x8e00, entry >> 16, entry >> 32, 0};
    }
    __asm__ volatile("lidt %0" : : "m"(where));
    out8(0x21, 0xff); /* the old interrupt controllers are silent */
    out8(0xa1, 0xff);
    at(uint32_t, APIC + APIC_TIMER) = MASKED; /* firmware's */
    at(uint32_t, APIC + APIC_TPR) = 0;
    at(uint32_t, APIC + APIC_SPURIOUS) = 0x100 | SPURIOUS;
}

struct interrupts interrupts_seen(uint64_t wanted)
{
    uint64_t end = deadline();
    do
        __asm__ volatile("sti; nop; nop; cli" : : : "memory");
    while (*(volatile uint8_t *)&seen.count < wanted && !late(end));
    struct interrupts found = seen;
    clear((uint64_t)&seen, sizeof seen);
    return found;
}

static void say(const void *data, uint32_t length)
{
    const uint8_t *bytes = data;
    for (uint32_t index = 0; index < length; index++) {
        if (image.door == DOOR_UART)
            for (uint64_t end = deadline(); !(in8(image.port + 5) & 0x20) && !late(end);)
                ;
        out8(image.port, bytes[index]);
    }
}

/* Bytes from the serial port, however long they take. */
void hear(void *data, uint32_t length)
{
    uint8_t *bytes = data;
    for (uint32_t index = 0; index < length; index++) {
        while (!(in8(image.port + 5) & 1))
            __asm__ volatile("pause");
        bytes[index] = in8(image.port);
    }
}

void frame(uint32_t kind, uint32_t number, uint32_t status, const void *data, uint32_t length)
{
    struct frame head = {FRAME_MAGIC, kind, number, status, length, 0};
    for (uint32_t index = 0; index < length; index++)
        head.check += ((const uint8_t *)data)[index];
    say(&head, sizeof head);
    say(data, length);
}

/* Whether a hypervisor says that this is a virtual machine. */
int hypervised(void)
{
    uint32_t leaf = 1, base, features, more;
    __asm__ volatile("cpuid" : "+a"(leaf), "=b"(base), "=c"(features), "=d"(more));
    return features >> 31;
}

void restart(void)
{
    out8(0xcf9, 2);
    out8(0xcf9, 6);
    for (uint64_t end = deadline(); !late(end);)
        ;
}
