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

/* edu.c, nvme.c: the drivers; out is towards memory */
int edu_is(const struct device *device);
int edu_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out);
int edu_message(const struct device *device, uint64_t address, uint32_t data);
int nvme_is(const struct device *device);
int nvme_begin(const struct device *device);
int nvme_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out);
int nvme_message(const struct device *device, uint64_t address, uint32_t data);

/* probe.c */
void probe(void);
