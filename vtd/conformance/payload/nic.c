/* Network controllers in loopback: 82574, which QEMU calls e1000e, and 82576, igb.

   What a device is to read is sent, comes back at once, and is stored behind the descriptors; what
   it is to write is sent from there. Each transfer has one descriptor of either direction. */
#include "kit.h"

enum {
    CTRL = 0x00, STATUS = 0x08, MDIC = 0x20, ICR = 0xc0, ICS = 0xc8, IMS = 0xd0, IMC = 0xd8,
    RCTL = 0x100, TCTL = 0x400, RECEIVE = 0x2800, TRANSMIT = 0x3800,
    BASE = 0x00, UPPER = 0x04, SIZE = 0x08, SPLIT = 0x0c, HEAD = 0x10, TAIL = 0x18, CONTROL = 0x28,
    ENTRY = 16, ENTRIES = 8, RING = ENTRY * ENTRIES, CAUSE = 1 << 2,
};
#define RESET (1u << 26)
#define LINK_UP 2
#define SET_LINK_UP (1 << 6)
#define QUEUE_ON (1u << 25)               /* of an 82576; the other has a threshold there */
#define ONE_BUFFER (1u << 25 | 2)         /* of an 82576: advanced, 2 KiB */
#define RECEIVE_ALL (1u << 26 | 0x8000 | 0x40 | 0x18 | 2) /* without CRC; MAC loopback, promiscuous */
#define TRANSMIT_ON 2
#define RESTART_NEGOTIATION (1 << 26 | 1 << 21 | 0x1340) /* to the PHY's register 0 */
#define WHOLE (3ull << 24)                /* end of packet, and a CRC is put behind it */
#define IGB 0x10c98086

static volatile uint32_t *at_register(const struct device *device, unsigned offset)
{
    return &at(uint32_t, device->registers + offset);
}

int nic_is(const struct device *device)
{
    uint32_t identity = config_read(device->bus, device->devfn, 0);
    return (identity == IGB || identity == 0x10d38086) &&
           (config_read(device->bus, device->devfn, 0x10) & ~0xfu) == device->registers;
}

static int await(const struct device *device, unsigned offset, uint32_t mask, uint32_t wanted, uint64_t end)
{
    while ((*at_register(device, offset) & mask) != wanted)
        if (late(end))
            return 1;
    return 0;
}

int nic_begin(const struct device *device)
{
    if (*at_register(device, RCTL) == RECEIVE_ALL) /* set up already: negotiation takes long */
        return 0;
    *at_register(device, CTRL) |= RESET;
    if (await(device, CTRL, RESET, 0, deadline()))
        return 1;
    *at_register(device, IMC) = ~0u;
    *at_register(device, CTRL) |= SET_LINK_UP;
    if (!(*at_register(device, STATUS) & LINK_UP))
        *at_register(device, MDIC) = RESTART_NEGOTIATION;
    for (unsigned ring = RECEIVE; ring <= TRANSMIT; ring += TRANSMIT - RECEIVE) {
        *at_register(device, ring + SIZE) = RING;
        if (config_read(device->bus, device->devfn, 0) == IGB && ring == RECEIVE)
            *at_register(device, ring + SPLIT) = ONE_BUFFER;
        *at_register(device, ring + CONTROL) |= QUEUE_ON;
    }
    *at_register(device, TCTL) = TRANSMIT_ON;
    *at_register(device, RCTL) = RECEIVE_ALL;
    return await(device, STATUS, LINK_UP, LINK_UP, deadline());
}

/* The next descriptor of a ring at this place; what is to be its tail then. */
static uint32_t put(const struct device *device, unsigned ring, struct descriptors where, uint64_t address, uint64_t command)
{
    uint32_t next = *at_register(device, ring + TAIL) % ENTRIES;
    at(uint64_t, where.memory + next * ENTRY) = address;
    at(uint64_t, where.memory + next * ENTRY + 8) = command;
    *at_register(device, ring + BASE) = where.reached;
    *at_register(device, ring + UPPER) = where.reached >> 32;
    return (next + 1) % ENTRIES;
}

int nic_transfer(const struct device *device, uint64_t address, uint64_t place, uint32_t length, int out)
{
    struct descriptors send = descriptors_begin(device, place, length, out), receive = send;
    uint64_t data = send.reached + DESCRIPTORS_DATA;
    receive.reached += RING;
    receive.memory += RING;
    uint32_t before = *at_register(device, RECEIVE + HEAD);
    uint32_t full = put(device, RECEIVE, receive, out ? address : data, 0);
    uint32_t sent = put(device, TRANSMIT, send, out ? data : address, WHOLE | length);
    *at_register(device, RECEIVE + TAIL) = full;
    *at_register(device, TRANSMIT + TAIL) = sent;
    int failed = await(device, TRANSMIT + HEAD, ~0u, sent, deadline());
    int came = !failed && !await(device, RECEIVE + HEAD, ~0u, full, moment());
    if (!came) /* nothing to send: the read was refused */
        *at_register(device, RECEIVE + TAIL) = before;
    if (failed) /* it is set up anew for the next case */
        *at_register(device, RCTL) = 0;
    descriptors_end(device, place, length, came && !out);
    return failed;
}

/* A cause that is set and not masked; what is read from the device comes behind the message. */
int nic_message(const struct device *device, uint64_t address, uint32_t data)
{
    message_to(device, address, data);
    *at_register(device, ICR) = ~0u;
    *at_register(device, IMS) = CAUSE;
    *at_register(device, ICS) = CAUSE;
    *at_register(device, IMC) = ~0u;
    *at_register(device, ICR) = ~0u;
    (void)*at_register(device, ICR);
    return 0;
}
