/* Written by python -m scripts.conformance_payload from vtd/conformance/format.py. */
#pragma once
#define VERSION 0x3
#define FRAME_MAGIC 0x46524456
#define STATE_MAGIC 0x54534456
#define MOST_DEVICES 0x8
#define MOST_VECTORS 0xf
#define NO_DEVICE 0x100
#define REAL_MACHINE 0x200
#define PAGE 0x1000
#define DESCRIPTORS 0x800
#define NVME_COMMANDS 0x100
#define MODE_PROBE 0x0
#define MODE_CASES 0x1
#define MODE_SERVE 0x2
#define DOOR_PLAIN 0x0
#define DOOR_UART 0x1
#define DRIVER_NONE 0x0
#define DRIVER_EDU 0x1
#define DRIVER_NVME 0x2
#define DRIVER_NIC 0x3
#define DRIVER_IOAT 0x4
#define RESET_SOFTWARE 0x0
#define RESET_MACHINE 0x1
#define RESET_NONE 0x2
#define OP_STORE 0x1
#define OP_LOAD 0x2
#define OP_CLEAR 0x3
#define OP_WRITE 0x4
#define OP_READ 0x5
#define OP_FILL 0x6
#define OP_DUMP 0x7
#define OP_DEVICE_READ 0x8
#define OP_DEVICE_WRITE 0x9
#define OP_MESSAGE 0xa
#define OP_INTERRUPTS 0xb
#define OP_OFF 0xc
#define OP_DRAIN 0xd
#define OP_DESCRIPTORS 0xe
#define STATUS_DONE 0x0
#define STATUS_TIME 0x1
#define STATUS_NO_RESET 0x2
#define STATUS_CRASHED 0x3
#define STATUS_NO_DEVICE 0x4
#define KIND_BEGIN 0x1
#define KIND_CASE 0x2
#define KIND_END 0x3
#define KIND_MEMORY 0x4
#define KIND_TABLE 0x5
#define KIND_UNIT 0x6
#define KIND_FUNCTION 0x7
#define KIND_PROBLEM 0x8
#define KIND_CONTROLLER 0x9
#define SCRATCH_PAGE_TABLES 0x0
#define SCRATCH_STACK 0x12000
#define SCRATCH_INTERRUPT_TABLE 0x16000
#define SCRATCH_STAGING 0x17000
#define SCRATCH_QUEUE 0x18000
#define SCRATCH_STATE 0x19000
#define SCRATCH_ADMIN 0x1a000
#define SCRATCH_COMPLETIONS 0x1b000
#define SCRATCH_FULL 0x1c000
#define SCRATCH_MORE_TABLES 0x1d000
#define SCRATCH_KEPT 0x25000
#define SCRATCH_BUFFERS 0x26000
#define SCRATCH_SIZE 0x2e000
#ifndef __ASSEMBLER__
#include <stdint.h>
struct device {
    uint8_t driver;
    uint8_t bus;
    uint8_t devfn;
    uint8_t message;
    uint32_t padding4;
    uint64_t registers;
} __attribute__((packed)); /* 16 bytes */
struct header {
    uint32_t magic;
    uint32_t flags;
    uint32_t checksum;
    uint32_t header_address;
    uint32_t load_address;
    uint32_t load_end;
    uint32_t bss_end;
    uint32_t entry;
    uint8_t opcode[1];
    uint32_t base;
    uint8_t jump[5];
    uint8_t padding11[6];
    uint64_t scratch;
    uint64_t unit;
    uint8_t digest[16];
    uint32_t version;
    uint32_t mode;
    uint32_t program;
    uint32_t cases;
    uint32_t first;
    uint16_t door;
    uint16_t port;
    uint32_t limit;
    uint32_t rsdp;
    struct device devices[8];
} __attribute__((packed)); /* 240 bytes */
struct test_case {
    uint32_t number;
    uint32_t reset;
    uint32_t instructions;
    uint32_t size;
    uint32_t output;
    uint32_t padding5;
} __attribute__((packed)); /* 24 bytes */
struct instruction {
    uint8_t op;
    uint8_t device;
    uint16_t size;
    uint32_t length;
    uint64_t address;
    uint64_t value;
} __attribute__((packed)); /* 24 bytes */
struct interrupts {
    uint8_t count;
    uint8_t vectors[15];
} __attribute__((packed)); /* 16 bytes */
struct frame {
    uint32_t magic;
    uint32_t kind;
    uint32_t number;
    uint32_t status;
    uint32_t length;
    uint32_t check;
} __attribute__((packed)); /* 24 bytes */
struct begin {
    uint8_t digest[16];
    uint64_t version;
    uint64_t capability;
    uint64_t extended_capability;
    uint64_t hypervisor;
} __attribute__((packed)); /* 48 bytes */
struct reset_proof {
    uint64_t global_status;
    uint64_t fault_status;
    uint64_t fault_control;
    uint64_t event_control;
    uint64_t queue_head;
    uint64_t queue_tail;
} __attribute__((packed)); /* 48 bytes */
struct state {
    uint32_t magic;
    uint32_t next;
    uint32_t reset;
    uint32_t running;
    uint8_t digest[16];
} __attribute__((packed)); /* 32 bytes */
#endif
