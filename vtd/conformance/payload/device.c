/* Devices that do DMA when they are told to, each by its driver. */
#include "kit.h"

/* Whether the device is where the image has it. */
int device_is(const struct device *device)
{
    switch (device->driver) {
    case DRIVER_NVME:
        return nvme_is(device);
    case DRIVER_NIC:
        return nic_is(device);
    case DRIVER_IOAT:
        return ioat_is(device);
    default:
        return edu_is(device);
    }
}

/* The device is made ready for a case; remapping is off. */
int device_begin(const struct device *device)
{
    switch (device->driver) {
    case DRIVER_NVME:
        return nvme_begin(device);
    case DRIVER_NIC:
        return nic_begin(device);
    case DRIVER_IOAT:
        return ioat_begin(device);
    default:
        return 0;
    }
}

static int transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out)
{
    switch (device->driver) {
    case DRIVER_NVME:
        return nvme_transfer(device, address, place, length, out);
    case DRIVER_NIC:
        return nic_transfer(device, address, place, length, out);
    case DRIVER_IOAT:
        return ioat_transfer(device, address, place, length, out);
    default:
        return edu_transfer(device, address, place, length, out);
    }
}

int device_read(const struct device *device, uint64_t address, uint64_t place, uint32_t length)
{
    return transfer(device, address, place, length, 0);
}

int device_write(const struct device *device, uint64_t address, uint64_t place, uint32_t length)
{
    return transfer(device, address, place, length, 1);
}

int device_message(const struct device *device, uint64_t address, uint32_t data)
{
    switch (device->driver) {
    case DRIVER_NVME:
        return nvme_message(device, address, data);
    case DRIVER_NIC:
        return nic_message(device, address, data);
    case DRIVER_IOAT:
        return 1; /* none without a descriptor */
    default:
        return edu_message(device, address, data);
    }
}

/* Whether what the device reads and writes is kept by the payload. */
static int keeps_nothing(const struct device *device)
{
    return device->driver == DRIVER_NIC || device->driver == DRIVER_IOAT;
}

/* What a device keeps is set and seen by way of a page of memory. */
int device_fill(const struct device *device, uint64_t place, uint64_t data, uint32_t length)
{
    uint64_t staging = image.scratch + SCRATCH_STAGING;
    if (keeps_nothing(device)) {
        copy(device_buffer(device, place), data, length);
        return 0;
    }
    for (uint32_t done = 0, part; done < length; done += part) {
        part = length - done < PAGE ? length - done : PAGE;
        copy(staging, data + done, part);
        if (device_read(device, staging, place + done, part))
            return 1;
    }
    return 0;
}

int device_dump(const struct device *device, uint64_t place, uint64_t data, uint32_t length)
{
    uint64_t staging = image.scratch + SCRATCH_STAGING;
    if (keeps_nothing(device)) {
        copy(data, device_buffer(device, place), length);
        return 0;
    }
    for (uint32_t done = 0, part; done < length; done += part) {
        part = length - done < PAGE ? length - done : PAGE;
        if (device_write(device, staging, place + done, part))
            return 1;
        copy(data + done, staging, part);
    }
    return 0;
}
