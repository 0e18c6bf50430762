/* What the parts of the payload know of each other. */
#pragma once
#include "format.h"

#define at(type, address) (*(volatile type *)(uintptr_t)(address))

extern const struct header image;

/* platform.c: ports, time, processor and its interrupts, the way out */
void out8(uint16_t port, uint8_t value);
void out32(uint16_t port, uint32_t value);
uint32_t config_read(uint8_t bus, uint8_t devfn, uint8_t offset);
void config_write(uint8_t bus, uint8_t devfn, uint8_t offset, uint32_t value);
void message_to(const struct device *device, uint64_t address, uint32_t data);
uint64_t moment(void);
uint64_t deadline(void);
int late(uint64_t when);
void copy(uint64_t to, uint64_t from, uint64_t length);
void clear(uint64_t to, uint64_t length);
uint64_t reach(uint64_t address);
void interrupts_on(void);
struct interrupts interrupts_seen(uint64_t wanted);
void hear(void *data, uint32_t length);
void frame(uint32_t kind, uint32_t number, uint32_t status, const void *data, uint32_t length);
void restart(void);
int hypervised(void);

/* unit.c: the remapping unit */
uint64_t unit_read(uint64_t offset, unsigned size);
void unit_write(uint64_t offset, unsigned size, uint64_t value);
int unit_off(void);
int unit_drain(uint64_t queue);
int unit_reset(void);

/* device.c: whatever can do DMA; 0 is success, 1 no end in time */
int device_is(const struct device *device);
int device_begin(const struct device *device);
int device_fill(const struct device *device, uint64_t place, uint64_t data, uint32_t length);
int device_dump(const struct device *device, uint64_t place, uint64_t data, uint32_t length);
int device_read(const struct device *device, uint64_t address, uint64_t place, uint32_t length);
int device_write(const struct device *device, uint64_t address, uint64_t place, uint32_t length);
int device_message(const struct device *device, uint64_t address, uint32_t data);

/* descriptors.c: memory for those of devices that work by them */
struct descriptors {
    uint64_t reached, memory;
};
enum { DESCRIPTORS_DATA = 256 };
void descriptors_at(uint64_t reached, uint64_t memory);
uint64_t device_buffer(const struct device *device, uint64_t place);
struct descriptors descriptors_begin(const struct device *device, uint64_t place, uint32_t length, int out);
void descriptors_end(const struct device *device, uint64_t place, uint32_t length, int taken);

/* edu.c, nvme.c, nic.c, ioat.c: the drivers; out is towards memory */
int edu_is(const struct device *device);
int edu_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out);
int edu_message(const struct device *device, uint64_t address, uint32_t data);
int nvme_is(const struct device *device);
int nvme_begin(const struct device *device);
int nvme_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out);
int nvme_message(const struct device *device, uint64_t address, uint32_t data);
int nic_is(const struct device *device);
int nic_begin(const struct device *device);
int nic_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out);
int nic_message(const struct device *device, uint64_t address, uint32_t data);
int ioat_is(const struct device *device);
int ioat_begin(const struct device *device);
int ioat_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out);

/* probe.c */
void probe(void);
