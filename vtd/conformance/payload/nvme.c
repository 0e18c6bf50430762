/* NVMe controllers with a memory buffer of their own, which holds the submission queue.

   A command is to be one request for data and nothing else, as cases count requests. So commands are
   fetched from the controller's own memory, and the completion queue is full from the beginning:
   a completion waits in the controller, which raises its vector all the same. The vector is masked
   and its pending bit shows the end of a command. A reset of the controller drops what waits. */
#include "kit.h"

enum {
    CAP = 0x00, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, CMBLOC = 0x38,
    CMBSZ = 0x3c, CMBMSC = 0x50, DOORBELLS = 0x1000,
    FLUSH = 0, WRITE = 1, READ = 2, CREATE_SUBMISSION = 1, CREATE_COMPLETION = 5, IDENTIFY = 6,
    COMMAND = 64, COMPLETION = 16, SECTOR = 512, ADMIN_ENTRIES = 8, BLOCKS = 128, VECTOR = 1,
};
#define CLASS 0x010802
#define ON 0x406      /* of the command register: memory, bus master, no INTx */
#define NO_MASTER 0x402

struct command {
    uint32_t opcode, namespace, reserved[4];
    uint64_t pages[2];
    uint32_t operands[6];
} __attribute__((packed));

static uint32_t tails[MOST_DEVICES];

static uint32_t *tail(const struct device *device)
{
    return &tails[device - image.devices];
}

/* What a register or capability names by the number of a BAR and an offset. */
static uint64_t in_bar(const struct device *device, uint32_t where)
{
    uint8_t bar = 0x10 + 4 * (where & 7);
    uint64_t low = config_read(device->bus, device->devfn, bar), high = 0;
    if (low & 4)
        high = config_read(device->bus, device->devfn, bar + 4);
    return reach((high << 32 | (low & ~0xfull)) + (where & ~7u));
}

/* The controller's own memory: a BAR, and an offset in units of CMBSZ.SZU. */
static uint64_t own_memory(const struct device *device)
{
    uint32_t place = at(uint32_t, device->registers + CMBLOC);
    unsigned unit = 12 + 4 * (at(uint32_t, device->registers + CMBSZ) >> 8 & 0xf);
    return in_bar(device, place & 7) + ((uint64_t)(place >> 12) << unit);
}

static uint64_t vector(const struct device *device)
{
    return in_bar(device, config_read(device->bus, device->devfn, device->message + 4)) + 16 * VECTOR;
}

static uint64_t pending(const struct device *device)
{
    return in_bar(device, config_read(device->bus, device->devfn, device->message + 8));
}

int nvme_is(const struct device *device)
{
    return config_read(device->bus, device->devfn, 8) >> 8 == CLASS &&
           in_bar(device, 0) == device->registers;
}

static void ring(const struct device *device, unsigned doorbell, uint32_t value)
{
    unsigned stride = 4u << (at(uint64_t, device->registers + CAP) >> 32 & 0xf);
    at(uint32_t, device->registers + DOORBELLS + doorbell * stride) = value;
}

static int await(uint64_t address, uint32_t mask, uint32_t wanted)
{
    for (uint64_t end = deadline(); (at(uint32_t, address) & mask) != wanted;)
        if (late(end))
            return 1;
    return 0;
}

/* What waits behind the mask of the vector goes: as a message, or nowhere without a bus master. */
static void unmask(const struct device *device, uint32_t control)
{
    config_write(device->bus, device->devfn, 4, control);
    at(uint32_t, vector(device) + 12) = 0;
    at(uint32_t, vector(device) + 12) = 1;
    config_write(device->bus, device->devfn, 4, ON);
    (void)at(uint32_t, device->registers + CSTS);
}

static int admin(const struct device *device, unsigned number, struct command command)
{
    uint64_t queue = image.scratch + SCRATCH_ADMIN, done = image.scratch + SCRATCH_COMPLETIONS;
    copy(queue + number * COMMAND, (uint64_t)&command, COMMAND);
    ring(device, 0, number + 1);
    return await(done + number * COMPLETION + 12, 0xffff0000, 1 << 16);
}

static int submit(const struct device *device, struct command command)
{
    uint32_t *next = tail(device);
    copy(own_memory(device) + *next * COMMAND, (uint64_t)&command, COMMAND);
    *next = (*next + 1) % NVME_COMMANDS;
    ring(device, 2, *next);
    return await(pending(device), 1 << VECTOR, 1 << VECTOR);
}

int nvme_begin(const struct device *device)
{
    uint64_t registers = device->registers, staging = image.scratch + SCRATCH_STAGING, memory;
    uint64_t done = image.scratch + SCRATCH_COMPLETIONS, full = image.scratch + SCRATCH_FULL;
    at(uint32_t, registers + CC) = 0;
    if (await(registers + CSTS, 1, 0))
        return 1;
    config_write(device->bus, device->devfn, device->message, 1u << 31);
    at(uint32_t, vector(device) + 12) = 1;
    at(uint32_t, vector(device) - 16 * VECTOR + 12) = 1;
    at(uint64_t, registers + CMBMSC) = 1;
    memory = own_memory(device);
    at(uint64_t, registers + CMBMSC) = memory | 3;
    clear(done, PAGE);
    at(uint32_t, registers + AQA) = (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1);
    at(uint64_t, registers + ASQ) = image.scratch + SCRATCH_ADMIN;
    at(uint64_t, registers + ACQ) = done;
    at(uint32_t, registers + CC) = 4 << 20 | 6 << 16 | 1; /* entries of 16 and 64 bytes */
    if (await(registers + CSTS, 3, 1) ||
        admin(device, 0, (struct command){IDENTIFY, 1, {0}, {staging, 0}, {0}}))
        return 1;
    uint32_t format = 128 + 4 * (at(uint8_t, staging + 26) & 0xf);
    if (at(uint64_t, staging) < BLOCKS || 1u << at(uint8_t, staging + format + 2) != SECTOR)
        return 1;
    *tail(device) = 0;
    if (admin(device, 1, (struct command){CREATE_COMPLETION, 0, {0}, {full, 0}, {1 << 16 | 1, VECTOR << 16 | 3}}) ||
        admin(device, 2, (struct command){CREATE_SUBMISSION, 0, {0}, {memory, 0},
                                          {(NVME_COMMANDS - 1) << 16 | 1, 1 << 16 | 1}}) ||
        submit(device, (struct command){FLUSH, 1, {0}, {0}, {0}})) /* two entries: full with one */
        return 1;
    unmask(device, NO_MASTER);
    return 0;
}

int nvme_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out)
{
    uint64_t second = (address | (PAGE - 1)) + 1;
    struct command command = {out ? READ : WRITE, 1, {0}, {address, 0}, {place / SECTOR, 0, length / SECTOR - 1}};
    if (second - address < length)
        command.pages[1] = second;
    int failed = submit(device, command);
    unmask(device, NO_MASTER);
    return failed;
}

/* A command without data makes the vector pending; it is the message by then. */
int nvme_message(const struct device *device, uint64_t address, uint32_t data)
{
    uint64_t entry = vector(device);
    at(uint32_t, entry) = address;
    at(uint32_t, entry + 4) = address >> 32;
    at(uint32_t, entry + 8) = data;
    int failed = submit(device, (struct command){FLUSH, 1, {0}, {0}, {0}});
    unmask(device, ON);
    return failed;
}
