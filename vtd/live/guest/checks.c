/*
 * Checks inside the guest that take system calls: VFIO on edu devices, kexec, counters of perf.
 *
 * Each check prints one line, "check: NAME ok" or "check: NAME FAILED: why". What a device may reach
 * is known beforehand; that it reaches all of it, and nothing else, is what the checks are about.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/perf_event.h>
#include <linux/sockios.h>
#include <linux/vfio.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096ull
#define HUGE_PAGE (2ull << 20)
#define BUFFER 0x40000 /* where an edu device has its memory */
#define SCRATCH 0x10000000ull
#define ARRAY(x) (sizeof(x) / sizeof((x)[0]))

static const char *check = "";
static int failed;

static void begin(const char *name)
{
	check = name;
	failed = 0;
}

static void fail(const char *format, ...)
{
	va_list arguments;

	if (failed++)
		return; /* the first one says it */
	printf("check: %s FAILED: ", check);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
}

static void end(void)
{
	if (!failed)
		printf("check: %s ok\n", check);
	else if (failed > 1)
		printf("note: %s: %d more like this\n", check, failed - 1);
	fflush(stdout);
}

static void skip(const char *why)
{
	printf("check: %s skipped: %s\n", check, why);
}

struct edu {
	int container, group, device;
	volatile uint8_t *bar;
	uint8_t *scratch; /* mapped at SCRATCH: what the device's memory holds is fetched here */
	uint64_t last;	  /* the last address that may be mapped */
};

static int dma_map(struct edu *edu, uint64_t iova, uint64_t size, void *memory, int access)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map), .flags = access, .vaddr = (uintptr_t)memory,
		.iova = iova, .size = size,
	};

	return ioctl(edu->container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static int dma_unmap(struct edu *edu, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = iova, .size = size,
	};

	return ioctl(edu->container, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -errno : 0;
}

#define RW (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)

static void must_map(struct edu *edu, uint64_t iova, uint64_t size, void *memory, int access)
{
	int error = dma_map(edu, iova, size, memory, access);

	if (error)
		fail("mapping %#llx: %s", (unsigned long long)iova, strerror(-error));
}

static void must_unmap(struct edu *edu, uint64_t iova, uint64_t size)
{
	int error = dma_unmap(edu, iova, size);

	if (error)
		fail("unmapping %#llx: %s", (unsigned long long)iova, strerror(-error));
}

static void *pages(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return memory;
}

static void transfer(struct edu *edu, uint64_t source, uint64_t destination, uint64_t count,
		     uint64_t command)
{
	volatile uint64_t *dma = (volatile uint64_t *)(edu->bar + 0x80);
	long patience = 10 * 1000 * 1000;

	dma[0] = source;
	dma[1] = destination;
	dma[2] = count;
	dma[3] = command;
	while (dma[3] & 1)
		if (!patience--)
			fail("a transfer does not end");
}

/* The device reads memory at iova into its own, or writes its own there. */
static void device_reads(struct edu *edu, uint64_t iova, uint64_t count)
{
	transfer(edu, iova, BUFFER, count, 1);
}

static void device_writes(struct edu *edu, uint64_t iova, uint64_t count)
{
	transfer(edu, BUFFER, iova, count, 3);
}

/* The device looks at an address and keeps what it finds, look after look. */
static void look(struct edu *edu, int number, uint64_t iova, uint64_t count)
{
	transfer(edu, iova, BUFFER + number * count, count, 1);
}

/* What it found in so many looks: fetched through the scratch page, which stays mapped. */
static const uint8_t *found(struct edu *edu, int number, uint64_t count)
{
	memset(edu->scratch, 0x5a, number * count);
	device_writes(edu, SCRATCH, number * count);
	return edu->scratch;
}

/* At each of so many pages the device reads the same as in memory, or nothing: a refused read leaves ones. */
static void expect_pages(struct edu *edu, uint64_t iova, int number, const uint8_t *memory,
			 uint64_t count, int mapped)
{
	const uint8_t *got;

	for (int page = 0; page < number; page++)
		look(edu, page, iova + page * PAGE, count);
	got = found(edu, number, count);
	for (int page = 0; page < number; page++, iova += PAGE, memory += PAGE, got += count)
		if ((memcmp(got, memory, count) == 0) != mapped)
			fail(mapped ? "the device does not find at %#llx what is mapped there"
				    : "the device reads %#llx, which is not mapped",
			     (unsigned long long)iova);
}

static void expect_reads(struct edu *edu, uint64_t iova, const void *wanted, uint64_t count)
{
	expect_pages(edu, iova, 1, wanted, count, 1);
}

static void expect_nothing(struct edu *edu, uint64_t iova, const void *secret, uint64_t count)
{
	expect_pages(edu, iova, 1, secret, count, 0);
}

static uint64_t last_address(struct edu *edu)
{
	uint8_t space[4096] = { 0 };
	struct vfio_iommu_type1_info *info = (void *)space;
	uint64_t last = (1ull << 39) - 1;

	info->argsz = sizeof(space);
	if (ioctl(edu->container, VFIO_IOMMU_GET_INFO, info) || !(info->flags & VFIO_IOMMU_INFO_CAPS))
		return last;
	for (uint32_t at = info->cap_offset; at;) {
		struct vfio_info_cap_header *header = (void *)(space + at);
		struct vfio_iommu_type1_info_cap_iova_range *ranges = (void *)header;

		if (header->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
			last = ranges->iova_ranges[ranges->nr_iovas - 1].end;
		at = header->next;
	}
	return last;
}

static int open_edu(struct edu *edu, const char *bdf)
{
	char path[128], link[256];
	struct vfio_group_status status = { .argsz = sizeof(status) };
	struct vfio_region_info region = { .argsz = sizeof(region), .index = 0 };
	ssize_t length;
	uint16_t command;

	memset(edu, 0, sizeof(*edu));
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	length = readlink(path, link, sizeof(link) - 1);
	if (length < 0)
		return -1;
	link[length] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%s", strrchr(link, '/') + 1);
	edu->container = open("/dev/vfio/vfio", O_RDWR);
	edu->group = open(path, O_RDWR);
	if (edu->container < 0 || edu->group < 0)
		return -1;
	if (ioctl(edu->group, VFIO_GROUP_GET_STATUS, &status) ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return -1;
	if (ioctl(edu->group, VFIO_GROUP_SET_CONTAINER, &edu->container) ||
	    ioctl(edu->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return -1;
	edu->device = ioctl(edu->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (edu->device < 0 || ioctl(edu->device, VFIO_DEVICE_GET_REGION_INFO, &region))
		return -1;
	edu->bar = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, edu->device,
			region.offset);
	if (edu->bar == MAP_FAILED)
		return -1;
	region = (struct vfio_region_info){ .argsz = sizeof(region),
					    .index = VFIO_PCI_CONFIG_REGION_INDEX };
	if (ioctl(edu->device, VFIO_DEVICE_GET_REGION_INFO, &region) ||
	    pread(edu->device, &command, 2, region.offset + 4) != 2)
		return -1;
	command |= 6; /* memory space and bus master */
	if (pwrite(edu->device, &command, 2, region.offset + 4) != 2)
		return -1;
	edu->scratch = pages(PAGE);
	edu->last = last_address(edu);
	return dma_map(edu, SCRATCH, PAGE, edu->scratch, RW);
}

static void close_edu(struct edu *edu)
{
	if (edu->bar && edu->bar != MAP_FAILED)
		munmap((void *)edu->bar, 1 << 20);
	close(edu->device);
	close(edu->group);
	close(edu->container);
}

static void fill(uint8_t *memory, uint64_t size)
{
	static uint32_t state = 0x1234567;

	for (uint64_t at = 0; at < size; at += 4) {
		state = state * 1664525 + 1013904223;
		memcpy(memory + at, &state, 4);
	}
}

static void check_mapped(struct edu *edu)
{
	uint8_t *memory = pages(4 * PAGE), copy[PAGE];
	uint64_t base = 0x40000000;

	begin("vfio mapped");
	fill(memory, 4 * PAGE);
	must_map(edu, base, 4 * PAGE, memory, RW);
	for (int page = 0; page < 4; page++)
		expect_reads(edu, base + page * PAGE, memory + page * PAGE, PAGE);
	for (int length = 1; length < 3000; length = length * 3 + 1)
		expect_reads(edu, base + PAGE - length / 2, memory + PAGE - length / 2, length);
	memcpy(copy, memory, PAGE);
	device_reads(edu, base, PAGE);
	device_writes(edu, base + 2 * PAGE + 100, PAGE);
	if (memcmp(memory + 2 * PAGE + 100, copy, PAGE))
		fail("what the device writes over a page boundary does not arrive");
	must_unmap(edu, base, 4 * PAGE);
	end();
	munmap(memory, 4 * PAGE);
}

static void check_unmapped(struct edu *edu)
{
	uint8_t *memory = pages(PAGE), before[PAGE];
	static const uint64_t nowhere[] = {
		0x0, 0x60001000, 0x60002000, 0xfed00000, 0x100000000, 0x3ffffff000, 0x7fffff0000,
		0x7ffffffff000, 0x800000000000, 0xffff7ffffffff000, 0xffff800000000000,
		0xfffffffffffff000,
	};

	begin("vfio unmapped");
	fill(memory, PAGE);
	memcpy(before, memory, PAGE);
	must_map(edu, 0x60000000, PAGE, memory, RW);
	expect_reads(edu, 0x60000000, memory, PAGE);
	for (unsigned int each = 0; each < ARRAY(nowhere); each++) {
		expect_nothing(edu, nowhere[each], memory, PAGE);
		device_writes(edu, nowhere[each], PAGE);
	}
	must_unmap(edu, 0x60000000, PAGE);
	device_writes(edu, 0x60000000, PAGE);
	expect_nothing(edu, 0x60000000, before, PAGE);
	if (memcmp(memory, before, PAGE))
		fail("the device wrote to memory that is not mapped any more");
	end();
	munmap(memory, PAGE);
}

static void check_read_only(struct edu *edu)
{
	uint8_t *memory = pages(PAGE), before[PAGE];

	begin("vfio read-only");
	fill(memory, PAGE);
	memcpy(before, memory, PAGE);
	must_map(edu, 0x50000000, PAGE, memory, VFIO_DMA_MAP_FLAG_READ);
	device_writes(edu, 0x50000000, 64);
	expect_reads(edu, 0x50000000, before, PAGE);
	fill(edu->scratch, PAGE);
	device_reads(edu, SCRATCH, PAGE);
	device_writes(edu, 0x50000000, PAGE);
	if (memcmp(memory, before, PAGE))
		fail("the device wrote to memory that is mapped for reading");
	must_unmap(edu, 0x50000000, PAGE);
	must_map(edu, 0x50000000, PAGE, memory, RW); /* and with more rights again */
	fill(edu->scratch, PAGE);
	device_reads(edu, SCRATCH, PAGE);
	device_writes(edu, 0x50000000, PAGE);
	if (memcmp(memory, edu->scratch, PAGE))
		fail("the device can't write to memory that is mapped for writing now");
	must_unmap(edu, 0x50000000, PAGE);
	end();
	munmap(memory, PAGE);
}

static void check_remapped(struct edu *edu)
{
	uint8_t *memory = pages(2 * PAGE);

	begin("vfio remapped");
	fill(memory, 2 * PAGE);
	for (int round = 0; round < 8; round++) {
		uint8_t *page = memory + (round & 1) * PAGE;

		must_map(edu, 0x40005000, PAGE, page, RW);
		expect_reads(edu, 0x40005000, page, PAGE);
		must_unmap(edu, 0x40005000, PAGE);
	}
	end();
	munmap(memory, 2 * PAGE);
}

static void check_edges(struct edu *edu)
{
	uint8_t *memory = pages(2 * PAGE);
	uint64_t high = (edu->last & -PAGE) - PAGE;

	begin("vfio high addresses");
	fill(memory, 2 * PAGE);
	must_map(edu, high, 2 * PAGE, memory, RW);
	expect_reads(edu, high, memory, PAGE);
	expect_reads(edu, high + PAGE, memory + PAGE, PAGE);
	expect_nothing(edu, high + 2 * PAGE, memory, PAGE);
	must_unmap(edu, high, 2 * PAGE);
	must_map(edu, 0, 2 * PAGE, memory, RW);
	expect_reads(edu, 0, memory, PAGE);
	must_unmap(edu, 0, 2 * PAGE);
	expect_nothing(edu, high, memory, PAGE);
	end();
	munmap(memory, 2 * PAGE);
}

/* Ranges that are no naturally aligned power of two, which one invalidation does not cover. */
static void check_unaligned(struct edu *edu)
{
	static const struct { int first, count; } ranges[] = {
		{ 3, 4 }, { 1, 3 }, { 5, 6 }, { 7, 2 }, { 15, 9 }, { 6, 3 }, { 0, 4 }, { 31, 33 },
		{ 511, 3 }, { 509, 8 },
	};
	uint64_t base = 0x70000000;
	uint8_t *memory = pages(33 * PAGE);

	begin("vfio unaligned unmap");
	for (unsigned int each = 0; each < ARRAY(ranges); each++) {
		uint64_t start = base + ranges[each].first * PAGE;
		uint64_t size = ranges[each].count * PAGE;

		fill(memory, size);
		must_map(edu, start, size, memory, RW);
		expect_pages(edu, start, ranges[each].count, memory, 64, 1);
		must_unmap(edu, start, size);
		expect_pages(edu, start, ranges[each].count, memory, 64, 0);
	}
	end();
	munmap(memory, 33 * PAGE);
}

static void check_superpages(struct edu *edu)
{
	uint64_t base = 0x80000000, size = 2 * HUGE_PAGE;
	uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	static const uint64_t places[] = {
		0, 0x1000, 0x1ff000, 0x1ffff0, 0x200000, 0x200fff, 0x3ff000,
	};

	begin("vfio superpages");
	if (memory == MAP_FAILED) {
		skip("no huge pages");
		return;
	}
	fill(memory, size);
	for (uint64_t shift = 0; shift <= PAGE; shift += PAGE) { /* large pages, then small ones */
		must_map(edu, base + shift, size, memory, RW);
		for (unsigned int each = 0; each < ARRAY(places); each++)
			expect_reads(edu, base + shift + places[each], memory + places[each], 16);
		expect_nothing(edu, base + shift + size, memory, 16);
		must_unmap(edu, base + shift, size);
		for (unsigned int each = 0; each < ARRAY(places); each++)
			expect_nothing(edu, base + shift + places[each], memory + places[each], 16);
	}
	/* a small page where a large one was, and the other way round */
	must_map(edu, base + 5 * PAGE, PAGE, memory + HUGE_PAGE, RW);
	expect_reads(edu, base + 5 * PAGE, memory + HUGE_PAGE, 64);
	expect_nothing(edu, base + 4 * PAGE, memory + 4 * PAGE, 64);
	must_unmap(edu, base + 5 * PAGE, PAGE);
	must_map(edu, base, size, memory, RW);
	expect_reads(edu, base + 5 * PAGE, memory + 5 * PAGE, 64);
	must_unmap(edu, base, size);
	end();
	munmap(memory, size);
}

/* Maps and unmaps at random beside a model of what is mapped. */
static void check_churn(struct edu *edu, int steps)
{
	enum { WINDOW = 96, SLOTS = 24, LOOKS = 3, MOST = PAGE / 32 };
	struct { int first, count, source; } slots[SLOTS] = { { 0 } };
	struct { int step, page, wanted; } looks[MOST]; /* since they were last compared */
	int owner[WINDOW], number = 0;
	uint64_t base = 0x20000000;
	uint8_t *memory = pages(WINDOW * PAGE);

	begin("vfio churn");
	srandom(1);
	fill(memory, WINDOW * PAGE);
	memset(owner, -1, sizeof(owner));
	for (int step = 0; step < steps; step++) {
		int slot = random() % SLOTS, page = random() % WINDOW;

		if (slots[slot].count) {
			must_unmap(edu, base + slots[slot].first * PAGE, slots[slot].count * PAGE);
			for (int at = 0; at < slots[slot].count; at++)
				owner[slots[slot].first + at] = -1;
			page = slots[slot].first + random() % slots[slot].count;
			slots[slot].count = 0;
		} else {
			int first = random() % WINDOW, most = 1 + random() % 9, count = 0;

			while (count < most && first + count < WINDOW && owner[first + count] < 0)
				count++;
			if (count) {
				int source = random() % (WINDOW - count + 1);

				must_map(edu, base + first * PAGE, count * PAGE,
					 memory + source * PAGE, RW);
				slots[slot].first = first;
				slots[slot].count = count;
				slots[slot].source = source;
				for (int at = 0; at < count; at++)
					owner[first + at] = source + at;
				page = first + random() % count;
			}
		}
		for (int each = 0; each < LOOKS; each++) {
			if (each)
				page = random() % WINDOW;
			look(edu, number, base + page * PAGE + 32, 32);
			looks[number].step = step;
			looks[number].page = page;
			looks[number++].wanted = owner[page];
		}
		if (step + 1 < steps && number + LOOKS <= MOST)
			continue;
		const uint8_t *got = found(edu, number, 32);

		for (int each = 0; each < number; each++, got += 32) {
			int led = -1;

			for (int at = 0; at < WINDOW; at++)
				if (!memcmp(got, memory + at * PAGE + 32, 32))
					led = at;
			if (led != looks[each].wanted)
				fail("step %d: page %d leads to %d instead of %d", looks[each].step,
				     looks[each].page, led, looks[each].wanted);
		}
		number = 0;
	}
	for (int slot = 0; slot < SLOTS; slot++)
		if (slots[slot].count)
			must_unmap(edu, base + slots[slot].first * PAGE, slots[slot].count * PAGE);
	end();
	munmap(memory, WINDOW * PAGE);
}

static void check_two_domains(struct edu *one, struct edu *other)
{
	uint8_t *memory = pages(2 * PAGE);

	begin("vfio two domains");
	fill(memory, 2 * PAGE);
	must_map(one, 0x40000000, PAGE, memory, RW);
	expect_nothing(other, 0x40000000, memory, PAGE);
	must_map(other, 0x40000000, PAGE, memory + PAGE, RW);
	for (int round = 0; round < 3; round++) {
		expect_reads(one, 0x40000000, memory, PAGE);
		expect_reads(other, 0x40000000, memory + PAGE, PAGE);
	}
	must_unmap(one, 0x40000000, PAGE);
	expect_nothing(one, 0x40000000, memory, PAGE);
	expect_reads(other, 0x40000000, memory + PAGE, PAGE);
	must_unmap(other, 0x40000000, PAGE);
	expect_nothing(other, 0x40000000, memory + PAGE, PAGE);
	end();
	munmap(memory, 2 * PAGE);
}

static int set_irqs(struct edu *edu, int index, int action, int eventfd)
{
	uint8_t space[sizeof(struct vfio_irq_set) + 4];
	struct vfio_irq_set *set = (void *)space;

	*set = (struct vfio_irq_set){ .argsz = sizeof(space), .index = index, .count = 1,
				      .flags = VFIO_IRQ_SET_DATA_EVENTFD | action };
	memcpy(set->data, &eventfd, 4);
	return ioctl(edu->device, VFIO_DEVICE_SET_IRQS, set) ? -errno : 0;
}

static void check_interrupt(struct edu *edu, int index, const char *name)
{
	int happened = eventfd(0, 0);
	struct pollfd wait = { .fd = happened, .events = POLLIN };
	uint64_t count;
	int error;

	begin(name);
	error = set_irqs(edu, index, VFIO_IRQ_SET_ACTION_TRIGGER, happened);
	if (error) {
		fail("%s", strerror(-error));
	} else {
		for (int round = 0; round < 5 && !failed; round++) {
			*(volatile uint32_t *)(edu->bar + 0x60) = 1;
			if (poll(&wait, 1, 10000) != 1 || read(happened, &count, 8) != 8)
				fail("interrupt %d does not arrive", round);
			*(volatile uint32_t *)(edu->bar + 0x64) = 1;
			if (index == VFIO_PCI_INTX_IRQ_INDEX) {
				struct vfio_irq_set unmask = {
					.argsz = sizeof(unmask), .index = index, .count = 1,
					.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
				};
				ioctl(edu->device, VFIO_DEVICE_SET_IRQS, &unmask);
			}
		}
		set_irqs(edu, index, VFIO_IRQ_SET_ACTION_TRIGGER, -1);
	}
	end();
	close(happened);
}

/* Interrupts that nobody programmed: a device that writes to the interrupt range by itself. */
static void provoke_interrupts(struct edu *edu)
{
	static const struct { uint64_t address; uint32_t data, size; } messages[] = {
		{ 0xfee00018, 0, 4 },	   /* subhandle valid, index 0 of another device */
		{ 0xfee7fff8, 0, 4 },	   /* an index that nobody uses */
		{ 0xfee00000, 0x4041, 4 }, /* compatibility format */
		{ 0xfee00010, 0, 8 },	   /* no interrupt at all */
		{ 0xfee01000, 0, 64 },
	};

	begin("vfio provoked interrupts");
	memset(edu->scratch, 0, PAGE);
	for (unsigned int each = 0; each < ARRAY(messages); each++) {
		memcpy(edu->scratch, &messages[each].data, 4);
		device_reads(edu, SCRATCH, messages[each].size);
		device_writes(edu, messages[each].address, messages[each].size);
	}
	device_reads(edu, 0xfee00000, 4);
	expect_reads(edu, SCRATCH, edu->scratch, 64);
	end();
}

static int vfio(int count, char **bdfs)
{
	static struct edu edus[8];

	begin("vfio open");
	for (int each = 0; each < count && each < 8; each++)
		if (open_edu(&edus[each], bdfs[each]))
			fail("%s: %s", bdfs[each], strerror(errno));
	if (failed) {
		end();
		return 1;
	}
	end();
	for (int each = 0; each < count && each < 8; each++) {
		printf("note: %s: addresses up to %#llx\n", bdfs[each],
		       (unsigned long long)edus[each].last);
		check_mapped(&edus[each]);
		check_unmapped(&edus[each]);
		check_read_only(&edus[each]);
		check_remapped(&edus[each]);
		check_edges(&edus[each]);
		check_interrupt(&edus[each], VFIO_PCI_MSI_IRQ_INDEX, "vfio msi");
	}
	if (count > 1)
		check_two_domains(&edus[0], &edus[1]);
	check_superpages(&edus[0]);
	check_unaligned(&edus[0]);
	check_churn(&edus[0], 400);
	for (int each = 0; each < count && each < 8; each++)
		close_edu(&edus[each]);
	return 0;
}

/* Another container and the same device: what the first one mapped is gone. */
static int again(const char *bdf)
{
	struct edu edu;
	uint8_t *memory = pages(PAGE);

	begin("vfio reopened");
	if (open_edu(&edu, bdf)) {
		fail("%s: %s", bdf, strerror(errno));
		end();
		return 1;
	}
	fill(memory, PAGE);
	must_map(&edu, 0x40000000, PAGE, memory, RW);
	expect_reads(&edu, 0x40000000, memory, PAGE);
	close_edu(&edu);
	if (open_edu(&edu, bdf))
		fail("%s: %s", bdf, strerror(errno));
	else
		expect_nothing(&edu, 0x40000000, memory, PAGE);
	end();
	close_edu(&edu);
	return 0;
}

static int one(const char *bdf, void (*run)(struct edu *edu))
{
	struct edu edu;

	if (open_edu(&edu, bdf)) {
		begin("vfio open");
		fail("%s: %s", bdf, strerror(errno));
		end();
		return 1;
	}
	run(&edu);
	close_edu(&edu);
	return 0;
}

static void intx(struct edu *edu)
{
	check_interrupt(edu, VFIO_PCI_INTX_IRQ_INDEX, "vfio intx");
}

/*
 * What maps and unmaps cost somebody who emulates the unit: the same operation over and over, its
 * number in a register of the edu device while it goes on, so that the host knows what it counts.
 */
enum { VFIO_ROUNDS = 100, DISK_ROUNDS = 300 };

static void phase(struct edu *edu, uint32_t number)
{
	volatile uint32_t *liveness = (volatile uint32_t *)(edu->bar + 4);

	*liveness = number;
	if (*liveness != ~number)
		fail("the device does not keep the number of an operation");
}

static void vfio_traffic(struct edu *edu, uint32_t number, const char *name, uint64_t size,
			 void *memory)
{
	uint64_t base = 0x40000000;

	printf("note: operation %u %d map %s\n", number, VFIO_ROUNDS, name);
	printf("note: operation %u %d unmap %s\n", number + 1, VFIO_ROUNDS, name);
	for (int round = 0; round < VFIO_ROUNDS; round++) {
		phase(edu, number);
		must_map(edu, base, size, memory, RW);
		phase(edu, number + 1);
		must_unmap(edu, base, size);
		phase(edu, 0);
	}
}

static void disk_traffic(struct edu *edu, uint32_t number, const char *name, int disk, size_t size,
			 int write)
{
	uint8_t *memory = pages(size);

	printf("note: operation %u %d %s\n", number, DISK_ROUNDS, name);
	phase(edu, number);
	for (int round = 0; round < DISK_ROUNDS; round++) {
		off_t at = (off_t)(round % 64) * size;
		ssize_t done = write ? pwrite(disk, memory, size, at) : pread(disk, memory, size, at);

		if (done != (ssize_t)size)
			fail("%s: %s", name, strerror(errno));
	}
	phase(edu, 0);
	munmap(memory, size);
}

static int traffic(const char *bdf, const char *path)
{
	struct edu edu;
	int disk = open(path, O_RDWR | O_DIRECT);
	uint8_t *small = pages(33 * PAGE);
	void *large = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);

	begin("traffic");
	if (disk < 0 || large == MAP_FAILED || open_edu(&edu, bdf)) {
		fail("%s, %s: %s", bdf, path, strerror(errno));
		end();
		return 1;
	}
	vfio_traffic(&edu, 1, "4 KiB", PAGE, small);
	vfio_traffic(&edu, 3, "33 pages", 33 * PAGE, small);
	vfio_traffic(&edu, 5, "2 MiB, one page", HUGE_PAGE, large);
	disk_traffic(&edu, 7, "disk writes 4 KiB", disk, PAGE, 1);
	disk_traffic(&edu, 8, "disk writes 128 KiB", disk, 32 * PAGE, 1);
	disk_traffic(&edu, 9, "disk reads 4 KiB", disk, PAGE, 0);
	end();
	close_edu(&edu);
	return failed != 0;
}

/* A work queue that this process shares its addresses with: descriptors of 64 bytes, written to a portal. */
enum dsa_operation { NO_OP, BATCH, DRAIN, MOVE, FILL, COMPARE };
enum { BLOCK = 2, RECORD = 4 | 8 };
enum { ENDED_WELL = 1, PAGE_FAULT = 3, REFUSED = 4, WRITTEN = 0x80 };

struct descriptor {
	uint32_t pasid, flags_and_operation;
	uint64_t completion, source, destination;
	uint32_t size, interrupt;
	uint64_t more[3];
} __attribute__((aligned(64)));

struct record {
	volatile uint8_t status, result;
	uint16_t reserved;
	uint32_t completed;
	uint64_t address, more[2];
} __attribute__((aligned(32)));

static volatile uint64_t *portal;
static struct record *record;

static struct descriptor described(enum dsa_operation operation, int flags, const void *source,
				   const void *destination, uint32_t size)
{
	return (struct descriptor){
		.flags_and_operation = (uint32_t)operation << 24 | flags,
		.completion = flags & RECORD ? (uintptr_t)record : 0,
		.source = (uintptr_t)source, .destination = (uintptr_t)destination, .size = size,
	};
}

/* How a descriptor ended; the record has the rest. */
static int carry_out(const struct descriptor *descriptor)
{
	const uint64_t *parts = (const void *)descriptor;

	memset(record, 0, sizeof(*record));
	__sync_synchronize();
	for (int each = 0; each < 8; each++)
		portal[each] = parts[each];
	for (long patience = 0; !record->status && patience < 60 * 1000; patience++)
		usleep(patience < 100 ? 50 : 1000);
	if (!record->status)
		fail("a descriptor does not end");
	return record->status;
}

#define carried_out(...) carry_out((const struct descriptor[]){ described(__VA_ARGS__) })

static void *fresh(void *at, uint64_t size, int protection)
{
	void *memory = mmap(at, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0),
			    -1, 0);

	if (memory == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return memory;
}

static void sva_moves(int rounds)
{
	enum { EACH = 1000, LENGTH = 96 };
	struct descriptor *list = pages(EACH * sizeof(*list));
	uint8_t *source = pages(EACH * LENGTH), *destination = pages(EACH * LENGTH);

	begin("sva descriptors");
	srandom(2);
	for (int round = 0; round < rounds && !failed; round++) {
		if (round % 10 == 9)
			printf("note: %d descriptors\n", (round + 1) * EACH);
		fill(source, EACH * LENGTH);
		memset(destination, 0, EACH * LENGTH);
		for (int each = 0; each < EACH; each++)
			list[each] = described(MOVE, 0, source + each * LENGTH,
					       destination + (EACH - 1 - each) * LENGTH, LENGTH);
		if (carried_out(BATCH, RECORD, list, NULL, EACH) != ENDED_WELL)
			fail("a batch ended with %#x after %u", record->status, record->completed);
		for (int each = 0; each < EACH; each++)
			if (memcmp(source + each * LENGTH,
				   destination + (EACH - 1 - each) * LENGTH, LENGTH))
				fail("round %d: part %d differs", round, each);
	}
	end();
	munmap(list, EACH * sizeof(*list));
	munmap(source, EACH * LENGTH);
	munmap(destination, EACH * LENGTH);
}

static void sva_faults(void)
{
	enum { PAGES = 64 };
	uint8_t *source = pages(PAGES * PAGE), *destination;
	int status;

	begin("sva pages that come when they are asked for");
	fill(source, PAGES * PAGE);
	destination = fresh(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE);
	status = carried_out(MOVE, RECORD | BLOCK, source, destination, PAGES * PAGE);
	if (status != ENDED_WELL || memcmp(source, destination, PAGES * PAGE))
		fail("ended with %#x", status);
	end();
	munmap(destination, PAGES * PAGE);

	begin("sva page faults that are told");
	destination = fresh(NULL, 2 * PAGE, PROT_READ | PROT_WRITE);
	destination[0] = 1;
	status = carried_out(MOVE, RECORD, source, destination, 2 * PAGE);
	if (status != (PAGE_FAULT | WRITTEN) || record->completed != PAGE ||
	    record->address != (uintptr_t)destination + PAGE)
		fail("ended with %#x after %u at %#llx", status, record->completed,
		     (unsigned long long)record->address);
	destination[PAGE] = 1;
	status = carried_out(MOVE, RECORD, source, destination, 2 * PAGE);
	if (status != ENDED_WELL || memcmp(source, destination, 2 * PAGE))
		fail("then ended with %#x", status);
	end();
	munmap(destination, 2 * PAGE);

	begin("sva read-only");
	destination = fresh(NULL, PAGE, PROT_READ);
	status = carried_out(MOVE, RECORD | BLOCK, source, destination, PAGE);
	if (status != (REFUSED | WRITTEN) || record->address != (uintptr_t)destination)
		fail("a write ended with %#x", status);
	status = carried_out(MOVE, RECORD | BLOCK, destination, source, PAGE);
	if (status != ENDED_WELL || source[0] || source[PAGE - 1])
		fail("a read ended with %#x", status);
	end();
	munmap(destination, PAGE);
	munmap(source, PAGES * PAGE);
}

/* What was unmapped is gone, and what is mapped there anew is found. */
static void sva_unmapped(void)
{
	uint8_t *source = pages(3 * PAGE), *seen = pages(3 * PAGE);
	uint8_t *place = fresh(NULL, 3 * PAGE, PROT_READ | PROT_WRITE);

	begin("sva unmapped");
	for (int round = 0; round < 50 && !failed; round++) {
		uint64_t size = (1 + round % 3) * PAGE;
		int status;

		fill(source, 3 * PAGE);
		fresh(place, size, PROT_READ | PROT_WRITE);
		status = carried_out(MOVE, RECORD | BLOCK, source, place, size);
		if (status != ENDED_WELL || memcmp(source, place, size))
			fail("round %d: ended with %#x", round, status);
		munmap(place, size);
		status = carried_out(MOVE, RECORD | BLOCK, place, seen, size);
		if (status != REFUSED || record->address != (uintptr_t)place)
			fail("round %d: after unmapping, ended with %#x", round, status);
		fresh(place, size, PROT_READ | PROT_WRITE);
		status = carried_out(MOVE, RECORD | BLOCK, place, seen, size);
		if (status != ENDED_WELL)
			fail("round %d: mapped again, ended with %#x", round, status);
		for (uint64_t at = 0; at < size; at += 64)
			if (seen[at])
				fail("round %d: the device finds what was there before", round);
	}
	end();
	munmap(place, 3 * PAGE);
	munmap(source, 3 * PAGE);
	munmap(seen, 3 * PAGE);
}

static int sva(const char *path, int rounds)
{
	int queue = open(path, O_RDWR);
	void *mapped = mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, queue, 0);

	begin("sva open");
	if (queue < 0 || mapped == MAP_FAILED) {
		fail("%s: %s", path, strerror(errno));
		end();
		return 1;
	}
	end();
	portal = mapped;
	record = pages(PAGE);
	sva_faults();
	sva_unmapped();
	sva_moves(rounds);
	close(queue);
	return 0;
}

static int load_kernel(const char *kernel, const char *initrd, const char *line, int on_crash)
{
	int files[] = { open(kernel, O_RDONLY), open(initrd, O_RDONLY) };
	long flags = on_crash ? 2 : 0; /* KEXEC_FILE_ON_CRASH */

	if (files[0] < 0 || files[1] < 0 ||
	    syscall(SYS_kexec_file_load, files[0], files[1], strlen(line) + 1, line, flags)) {
		perror("kexec_file_load");
		return 1;
	}
	if (on_crash)
		return 0;
	sync();
	reboot(0x45584543); /* LINUX_REBOOT_CMD_KEXEC */
	perror("reboot");
	return 1;
}

static int count(const char *type, const char *config, const char *config1, int seconds)
{
	struct perf_event_attr attributes = {
		.size = sizeof(attributes), .type = strtoul(type, NULL, 0),
		.config = strtoull(config, NULL, 0), .config1 = strtoull(config1, NULL, 0),
	};
	int event = syscall(SYS_perf_event_open, &attributes, -1, 0, -1, 0);
	uint64_t value = 0;

	if (event < 0) {
		perror("perf_event_open");
		return 1;
	}
	sleep(seconds);
	if (read(event, &value, 8) != 8)
		return 1;
	printf("%llu\n", (unsigned long long)value);
	return 0;
}

/* The self-tests that a network driver brings, those that need the interface to be off included. */
static int self_test(const char *interface)
{
	struct {
		struct ethtool_sset_info info;
		uint32_t count;
	} set = { .info = { .cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_TEST } };
	struct ethtool_gstrings *names;
	struct ethtool_test *test;
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	begin("network self-test");
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
	request.ifr_data = (void *)&set;
	if (ioctl(fd, SIOCETHTOOL, &request) || !set.info.sset_mask) {
		fail("%s has none: %s", interface, strerror(errno));
		end();
		return 1;
	}
	names = calloc(1, sizeof(*names) + set.count * ETH_GSTRING_LEN);
	names->cmd = ETHTOOL_GSTRINGS;
	names->string_set = ETH_SS_TEST;
	names->len = set.count;
	test = calloc(1, sizeof(*test) + set.count * sizeof(test->data[0]));
	test->cmd = ETHTOOL_TEST;
	test->len = set.count;
	test->flags = ETH_TEST_FL_OFFLINE;
	request.ifr_data = (void *)names;
	if (ioctl(fd, SIOCETHTOOL, &request))
		fail("%s: names: %s", interface, strerror(errno));
	request.ifr_data = (void *)test;
	if (ioctl(fd, SIOCETHTOOL, &request))
		fail("%s: %s", interface, strerror(errno));
	for (uint32_t i = 0; i < set.count; i++)
		if (test->data[i])
			fail("%s: %.32s gives %llu", interface, (char *)names->data + i * ETH_GSTRING_LEN,
			     (unsigned long long)test->data[i]);
	if (test->flags & ETH_TEST_FL_FAILED)
		fail("%s: the driver says so", interface);
	end();
	return failed != 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "vfio") && argc > 2)
		return vfio(argc - 2, argv + 2);
	if (!strcmp(what, "again") && argc == 3)
		return again(argv[2]);
	if (!strcmp(what, "intx") && argc == 3)
		return one(argv[2], intx);
	if (!strcmp(what, "provoke") && argc == 3)
		return one(argv[2], provoke_interrupts);
	if (!strcmp(what, "sva") && argc == 4)
		return sva(argv[2], atoi(argv[3]));
	if (!strcmp(what, "traffic") && argc == 4)
		return traffic(argv[2], argv[3]);
	if (!strcmp(what, "kexec") && argc == 5)
		return load_kernel(argv[2], argv[3], argv[4], 0);
	if (!strcmp(what, "kdump") && argc == 5)
		return load_kernel(argv[2], argv[3], argv[4], 1);
	if (!strcmp(what, "count") && argc == 6)
		return count(argv[2], argv[3], argv[4], atoi(argv[5]));
	if (!strcmp(what, "self-test") && argc == 3)
		return self_test(argv[2]);
	fprintf(stderr, "checks vfio BDF... | again BDF | intx BDF | provoke BDF | "
			"traffic BDF DISK | sva QUEUE ROUNDS | kexec KERNEL INITRD LINE | kdump KERNEL INITRD LINE | "
			"count TYPE CONFIG CONFIG1 SECONDS | self-test INTERFACE\n");
	return 2;
}
