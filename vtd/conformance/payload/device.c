/* Devices that do DMA when they are told to: QEMU's edu. */
#include "kit.h"

#define EDU 0x11e81234
enum { BUFFER = 0x40000, RAISE = 0x60, ACKNOWLEDGE = 0x64, SOURCE = 0x80, TARGET = 0x88, COUNT = 0x90, GO = 0x98 };

/* Whether the device is where the image has it. */
int device_is(const struct device *device)
{
    return config_read(device->bus, device->devfn, 0) == EDU &&
           (config_read(device->bus, device->devfn, 0x10) & ~0xfu) == device->registers;
}

static int transfer(const struct device *device, uint64_t from, uint64_t to, uint32_t length, int out)
{
    uint64_t registers = device->registers;
    at(uint64_t, registers + SOURCE) = from;
    at(uint64_t, registers + TARGET) = to;
    at(uint64_t, registers + COUNT) = length;
    at(uint64_t, registers + GO) = 1 | out << 1;
    for (uint64_t end = deadline(); at(uint64_t, registers + GO) & 1;)
        if (late(end))
            return 1;
    return 0;
}

int device_read(const struct device *device, uint64_t address, uint64_t place, uint32_t length)
{
    return transfer(device, address, BUFFER + place, length, 0);
}

int device_write(const struct device *device, uint64_t address, uint64_t place, uint32_t length)
{
    return transfer(device, BUFFER + place, address, length, 1);
}

int device_fill(const struct device *device, uint64_t place, uint64_t data, uint32_t length)
{
    copy(image.scratch + SCRATCH_STAGING, data, length);
    return device_read(device, image.scratch + SCRATCH_STAGING, place, length);
}

int device_dump(const struct device *device, uint64_t place, uint64_t data, uint32_t length)
{
    int failed = device_write(device, image.scratch + SCRATCH_STAGING, place, length);
    copy(data, image.scratch + SCRATCH_STAGING, length);
    return failed;
}

/* The device's own message (MSI with a 64-bit address) is set up as the wanted one, and sent; what
   is read from the device last comes behind it. */
void device_message(const struct device *device, uint64_t address, uint32_t data)
{
    uint8_t bus = device->bus, devfn = device->devfn, message = device->message;
    config_write(bus, devfn, message + 4, address);
    config_write(bus, devfn, message + 8, address >> 32);
    config_write(bus, devfn, message + 12, data);
    config_write(bus, devfn, message, 1u << 16);
    at(uint32_t, device->registers + RAISE) = 1;
    at(uint32_t, device->registers + ACKNOWLEDGE) = 1;
    (void)at(uint32_t, device->registers);
}
