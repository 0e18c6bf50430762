/* Half a page of memory that a device reaches: its descriptors, and behind them data.

   What devices read and write is kept in pages of the payload, as these devices keep nothing. */
#include "kit.h"

static struct descriptors here;

/* Where the next transfer has its descriptors: as the device names it, and as software does. */
void descriptors_at(uint64_t reached, uint64_t memory)
{
    here = (struct descriptors){reached, memory};
}

uint64_t device_buffer(const struct device *device, uint64_t place)
{
    return image.scratch + SCRATCH_BUFFERS + (device - image.devices) * PAGE + place % PAGE;
}

/* The half page is the device's from now on; what was there is kept. */
struct descriptors descriptors_begin(const struct device *device, uint64_t place, uint32_t length, int out)
{
    copy(image.scratch + SCRATCH_KEPT, here.memory, DESCRIPTORS);
    clear(here.memory, DESCRIPTORS_DATA);
    if (out)
        copy(here.memory + DESCRIPTORS_DATA, device_buffer(device, place), length);
    return here;
}

/* What the device has read is taken, if it came so far, and the half page is as before. */
void descriptors_end(const struct device *device, uint64_t place, uint32_t length, int taken)
{
    if (taken)
        copy(device_buffer(device, place), here.memory + DESCRIPTORS_DATA, length);
    copy(here.memory, image.scratch + SCRATCH_KEPT, DESCRIPTORS);
}
