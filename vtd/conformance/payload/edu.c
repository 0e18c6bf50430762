/* QEMU's edu: a buffer of 4 KiB, DMA in both directions, MSI. */
#include "kit.h"

#define EDU 0x11e81234
enum { BUFFER = 0x40000, RAISE = 0x60, ACKNOWLEDGE = 0x64, SOURCE = 0x80, TARGET = 0x88, COUNT = 0x90, GO = 0x98 };

int edu_is(const struct device *device)
{
    return config_read(device->bus, device->devfn, 0) == EDU &&
           (config_read(device->bus, device->devfn, 0x10) & ~0xfu) == device->registers;
}

int edu_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out)
{
    uint64_t registers = device->registers;
    at(uint64_t, registers + SOURCE) = out ? BUFFER + place : address;
    at(uint64_t, registers + TARGET) = out ? address : BUFFER + place;
    at(uint64_t, registers + COUNT) = length;
    at(uint64_t, registers + GO) = 1 | out << 1;
    for (uint64_t end = deadline(); at(uint64_t, registers + GO) & 1;)
        if (late(end))
            return 1;
    return 0;
}

/* What is read from the device last comes behind the message. */
int edu_message(const struct device *device, uint64_t address, uint32_t data)
{
    message_to(device, address, data);
    at(uint32_t, device->registers + RAISE) = 1;
    at(uint32_t, device->registers + ACKNOWLEDGE) = 1;
    (void)at(uint32_t, device->registers);
    return 0;
}
