/* The remapping unit: its registers, switching it off, and a reset by software alone. */
#include "kit.h"

enum {
    CAP = 0x08, ECAP = 0x10, GCMD = 0x18, GSTS = 0x1c, RTADDR = 0x20, CCMD = 0x28, FSTS = 0x34,
    FECTL = 0x38, PMEN = 0x64, IQT = 0x88, IQH = 0x80, IQA = 0x90, ICS = 0x9c, IECTL = 0xa0,
    IRTA = 0xb8,
};
#define TE (1u << 31)
#define SRTP (1u << 30)
#define QIE (1u << 26)
#define IRE (1u << 25)
#define SIRTP (1u << 24)
#define CFI (1u << 23)

uint64_t unit_read(uint64_t offset, unsigned size)
{
    return size == 8 ? at(uint64_t, image.unit + offset) : at(uint32_t, image.unit + offset);
}

/* The write has arrived once a read has come back: a device's requests would not wait for it. */
void unit_write(uint64_t offset, unsigned size, uint64_t value)
{
    if (size == 8)
        at(uint64_t, image.unit + offset) = value;
    else
        at(uint32_t, image.unit + offset) = value;
    unit_read(0, 4);
}

/* Wait until the bits of a register are as wanted; 1 if they don't become so. */
static int await(uint64_t offset, unsigned size, uint64_t mask, uint64_t wanted)
{
    for (uint64_t end = deadline(); (unit_read(offset, size) & mask) != wanted;)
        if (late(end))
            return 1;
    return 0;
}

/* One function of GCMD_REG at a time (11.4.4.1). */
static int command(uint32_t bit, int on)
{
    uint32_t functions = unit_read(GSTS, 4) & (TE | QIE | IRE | CFI);
    unit_write(GCMD, 4, on ? functions | bit : functions & ~bit);
    return await(GSTS, 4, bit, on ? bit : 0);
}

int unit_off(void)
{
    return command(TE, 0);
}

/* A wait descriptor that stores a status of 0 (6.5.2.9). */
static void put_wait(uint64_t place)
{
    at(uint64_t, place) = 5 | 1 << 5;
    at(uint64_t, place + 8) = image.scratch + SCRATCH_QUEUE + 64;
}

/* The queue ends with a wait descriptor at its head: what is behind that is given up. */
int unit_drain(uint64_t queue)
{
    uint64_t address = unit_read(IQA, 8), head = unit_read(IQH, 8), size = address & 0x800 ? 32 : 16;
    uint64_t tail = (head + size) % (4096u << (address & 7));
    if (!(unit_read(GSTS, 4) & QIE) || (address & ~0xfffull) != queue)
        return 1;
    unit_write(FSTS, 4, 0xffffffff);
    clear(queue + head, size);
    put_wait(queue + head);
    unit_write(IQT, 8, tail);
    return await(IQH, 8, 0x7fff0, tail);
}

/* The caches of both kinds: by the queue, which does interrupt entries too, where there is one. */
static int invalidate(void)
{
    uint64_t queue = image.scratch + SCRATCH_QUEUE, iotlb = (unit_read(ECAP, 8) >> 8 & 0x3ff) * 16;
    int failed = 0;
    unit_write(CCMD, 8, 1ull << 63 | 1ull << 61);
    failed |= await(CCMD, 8, 1ull << 63, 0);
    unit_write(iotlb + 8, 8, 1ull << 63 | 1ull << 60);
    failed |= await(iotlb + 8, 8, 1ull << 63, 0);
    if (!(unit_read(ECAP, 8) & 2))
        return failed;
    clear(queue, 64);
    at(uint64_t, queue) = 1 | 1 << 4;      /* context cache, all */
    at(uint64_t, queue + 16) = 2 | 1 << 4; /* IOTLB, all */
    put_wait(queue + 32);
    put_wait(queue + 48);
    if (unit_read(ECAP, 8) & 8) {
        at(uint64_t, queue + 32) = 4; /* interrupt entries, all */
        at(uint64_t, queue + 40) = 0;
    }
    unit_write(IQT, 8, 0);
    unit_write(IQA, 8, queue);
    failed |= command(QIE, 1);
    unit_write(IQT, 8, 64);
    failed |= await(IQH, 8, 0x7fff0, 64);
    return failed | command(QIE, 0);
}

/* What 11.4 gives after a reset, as far as software can bring it about. */
int unit_reset(void)
{
    uint64_t cap = unit_read(CAP, 8), records = (cap >> 24 & 0x3ff) * 16;
    int failed = command(TE, 0) | command(IRE, 0);
    unit_write(FSTS, 4, 0xffffffff); /* an error would keep the queue from running dry */
    if (!failed && unit_read(GSTS, 4) & QIE)
        failed |= command(QIE, 0);
    if (failed)
        return failed;
    failed |= command(CFI, 0);
    unit_write(RTADDR, 8, 0);
    failed |= command(SRTP, 1);
    if (unit_read(ECAP, 8) & 8) {
        unit_write(IRTA, 8, 0);
        failed |= command(SIRTP, 1);
    }
    failed |= invalidate();
    for (uint64_t index = 0; index <= (cap >> 40 & 0xff); index++)
        unit_write(records + 16 * index + 12, 4, 1u << 31);
    unit_write(FSTS, 4, 0xffffffff);
    for (unsigned event = FECTL; event <= IECTL; event += IECTL - FECTL) {
        unit_write(event, 4, 1u << 31);
        for (unsigned offset = 4; offset <= 12; offset += 4)
            unit_write(event + offset, 4, 0);
    }
    unit_write(ICS, 4, 1);
    unit_write(IQT, 8, 0);
    unit_write(IQA, 8, 0);
    if (cap & 0x60)
        unit_write(PMEN, 4, 0);
    return failed;
}
