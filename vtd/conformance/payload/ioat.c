/* The copy engine of Xeon processors (I/OAT), its first channel: one descriptor for each transfer,
   between the address of the case and memory behind the descriptor. A refused request halts the
   channel, which is reset before the next one. */
#include "kit.h"

enum {
    CHANNEL = 0x80, COMMAND = 0x04, COUNT = 0x06, STATUS = 0x08, CHAIN = 0x10, COMPLETION = 0x18,
    ERRORS = 0x28, RESET = 1 << 5, DONE = 1, STATE = 7, DESCRIPTOR = 64,
};
#define ENGINE 0x20218086
#define COMPLETES (1ull << 35) /* CHANSTS is stored */

int ioat_is(const struct device *device)
{
    uint32_t low = config_read(device->bus, device->devfn, 0x10), high = config_read(device->bus, device->devfn, 0x14);
    return config_read(device->bus, device->devfn, 0) == ENGINE &&
           reach((uint64_t)high << 32 | (low & ~0xfu)) == device->registers;
}

int ioat_begin(const struct device *device)
{
    uint64_t channel = device->registers + CHANNEL;
    at(uint8_t, channel + COMMAND) = RESET;
    for (uint64_t end = deadline(); at(uint8_t, channel + COMMAND) & RESET;)
        if (late(end))
            return 1;
    at(uint32_t, channel + ERRORS) = at(uint32_t, channel + ERRORS);
    return 0;
}

int ioat_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out)
{
    struct descriptors where = descriptors_begin(device, place, length, out);
    uint64_t channel = device->registers + CHANNEL, data = where.reached + DESCRIPTORS_DATA, state = 0;
    int failed = ioat_begin(device);
    at(uint64_t, where.memory) = COMPLETES | length;
    at(uint64_t, where.memory + 8) = out ? data : address;
    at(uint64_t, where.memory + 16) = out ? address : data;
    at(uint64_t, where.memory + 24) = where.reached;
    at(uint64_t, channel + COMPLETION) = where.reached + DESCRIPTOR;
    at(uint64_t, channel + CHAIN) = where.reached;
    at(uint16_t, channel + COUNT) = 1;
    for (uint64_t end = deadline(); !failed && !(state = at(uint64_t, channel + STATUS) & STATE);)
        failed = late(end);
    descriptors_end(device, place, length, !out && state == DONE);
    return failed;
}
