/* Devices that do DMA when they are told to, each by its driver. */
#include "kit.h"

/* Whether the device is where the image has it. */
int device_is(const struct device *device)
{
    return device->driver == DRIVER_NVME ? nvme_is(device) : edu_is(device);
}

/* The device is made ready for a case; remapping is off. */
int device_begin(const struct device *device)
{
    return device->driver == DRIVER_NVME ? nvme_begin(device) : 0;
}

int device_read(const struct device *device, uint64_t address, uint64_t place, uint32_t length)
{
    return device->driver == DRIVER_NVME ? nvme_transfer(device, address, place, length, 0)
                                         : edu_transfer(device, address, place, length, 0);
}

int device_write(const struct device *device, uint64_t address, uint64_t place, uint32_t length)
{
    return device->driver == DRIVER_NVME ? nvme_transfer(device, address, place, length, 1)
                                         : edu_transfer(device, address, place, length, 1);
}

int device_message(const struct device *device, uint64_t address, uint32_t data)
{
    return device->driver == DRIVER_NVME ? nvme_message(device, address, data)
                                         : edu_message(device, address, data);
}

/* What a device keeps is set and seen by way of a page of memory. */
int device_fill(const struct device *device, uint64_t place, uint64_t data, uint32_t length)
{
    uint64_t staging = image.scratch + SCRATCH_STAGING;
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
    for (uint32_t done = 0, part; done < length; done += part) {
        part = length - done < PAGE ? length - done : PAGE;
        if (device_write(device, staging, place + done, part))
            return 1;
        copy(data + done, staging, part);
    }
    return 0;
}
