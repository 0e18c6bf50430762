/* Carries out the cases of an image, one after the other, and says what came of each. */
#include "kit.h"

static struct state *state(void)
{
    return (struct state *)(image.scratch + SCRATCH_STATE);
}

/* Whether the state in memory is of this image: the machine was reset on purpose. */
static int resumed(void)
{
    if (state()->magic != STATE_MAGIC)
        return 0;
    for (unsigned index = 0; index < sizeof image.digest; index++)
        if (state()->digest[index] != image.digest[index])
            return 0;
    return 1;
}

static void begin(void)
{
    struct begin data = {{0}, 0, 0, 0, hypervised()};
    copy((uint64_t)data.digest, (uint64_t)image.digest, sizeof image.digest);
    if (image.unit) {
        data.version = unit_read(0, 4);
        data.capability = unit_read(8, 8);
        data.extended_capability = unit_read(0x10, 8);
    }
    frame(KIND_BEGIN, image.first, 0, &data, sizeof data);
}

/* Memory space and bus mastering on, INTx off. Another device there: the image is for another
   machine, and would write where it must not. */
static int devices_on(void)
{
    for (uint32_t index = 0; index < MOST_DEVICES; index++) {
        const struct device *each = &image.devices[index];
        if (!each->driver)
            continue;
        if (!device_is(each)) {
            frame(KIND_PROBLEM, NO_DEVICE + index, 0, 0, 0);
            return 0;
        }
        config_write(each->bus, each->devfn, 4, 0x406);
    }
    return 1;
}

static int devices_begin(void)
{
    int failed = 0;
    for (uint32_t index = 0; index < MOST_DEVICES; index++)
        if (image.devices[index].driver)
            failed |= device_begin(&image.devices[index]);
    return failed;
}

static void prove_reset(struct reset_proof *proof)
{
    *proof = (struct reset_proof){unit_read(0x1c, 4), unit_read(0x34, 4), unit_read(0x38, 4),
                                  unit_read(0xa0, 4), unit_read(0x80, 8), unit_read(0x88, 8)};
}

/* One instruction; 0, or the status that ends the case. Its output goes to *output. */
static int step(const struct instruction *what, uint64_t data, uint64_t *output)
{
    const struct device *device = &image.devices[what->device % MOST_DEVICES];
    struct interrupts seen;
    int failed = 0;
    switch (what->op) {
    case OP_STORE:
        copy(what->address, data, what->length);
        break;
    case OP_LOAD:
        copy(*output, what->address, what->length);
        *output += what->length;
        break;
    case OP_CLEAR:
        clear(what->address, what->length);
        break;
    case OP_WRITE:
        unit_write(what->address, what->size, what->value);
        break;
    case OP_READ:
        at(uint64_t, *output) = unit_read(what->address, what->size);
        *output += 8;
        break;
    case OP_FILL:
        failed = device_fill(device, what->address, data, what->length);
        break;
    case OP_DUMP:
        failed = device_dump(device, what->address, *output, what->length);
        *output += what->length;
        break;
    case OP_DEVICE_READ:
        failed = device_read(device, what->address, what->value, what->length);
        break;
    case OP_DEVICE_WRITE:
        failed = device_write(device, what->address, what->value, what->length);
        break;
    case OP_DESCRIPTORS:
        descriptors_at(what->address, what->value);
        break;
    case OP_MESSAGE:
        failed = device_message(device, what->address, what->value);
        break;
    case OP_INTERRUPTS:
        seen = interrupts_seen(what->value);
        copy(*output, (uint64_t)&seen, sizeof seen);
        *output += sizeof seen;
        break;
    case OP_OFF:
        failed = unit_off();
        break;
    case OP_DRAIN:
        unit_drain(what->address); /* the reset finds out whether it helped */
        break;
    }
    return failed ? STATUS_TIME : STATUS_DONE;
}

/* Output is collected behind the program, in memory that the image has for it. */
static void run(const struct test_case *what)
{
    uint64_t next = (uint64_t)(what + 1), begin = image.scratch + SCRATCH_SIZE, output = begin;
    int status = STATUS_DONE;
    interrupts_seen(0);
    prove_reset((struct reset_proof *)output);
    output += sizeof(struct reset_proof);
    for (uint32_t index = 0; index < what->instructions && status == STATUS_DONE; index++) {
        const struct instruction *each = (const struct instruction *)next;
        uint64_t data = next + sizeof *each;
        next = data;
        if (each->op == OP_STORE || each->op == OP_FILL)
            next += (each->length + 7) & ~7u;
        status = step(each, data, &output);
    }
    if (what->reset != RESET_NONE)
        unit_off();
    frame(KIND_CASE, what->number, status, (void *)begin, output - begin);
}

/* On a real machine nothing but reading is allowed, whatever the image says. */
static int refused(uint32_t reset)
{
    if (reset == RESET_NONE || hypervised())
        return 0;
    frame(KIND_PROBLEM, REAL_MACHINE, 0, 0, 0);
    return 1;
}

/* A case that came, or is next: on a unit and devices that are as after a reset. */
static void carry_out(const struct test_case *what)
{
    if (devices_begin())
        frame(KIND_CASE, what->number, STATUS_NO_DEVICE, 0, 0);
    else
        run(what);
}

/* Cases by the serial port, one after the other; whoever sends them sees to it that they fit. */
static void serve(void)
{
    struct test_case *what = (struct test_case *)((uint64_t)&image + image.program);
    for (;;) {
        hear(what, sizeof *what);
        hear(what + 1, what->size);
        if (unit_reset())
            frame(KIND_CASE, what->number, STATUS_NO_RESET, 0, 0);
        else
            carry_out(what);
    }
}

void kit(void)
{
    uint64_t next = (uint64_t)&image + image.program;
    interrupts_on();
    if (image.mode == MODE_SERVE)
        out8(image.port + 2, 0xc1); /* the port's queue is on before anything is sent */
    if (!resumed())
        begin();
    if (image.mode == MODE_PROBE) {
        probe();
        return;
    }
    if (refused(((const struct test_case *)next)->reset) || !devices_on())
        return;
    if (image.mode == MODE_SERVE)
        serve();
    if (!resumed()) {
        *state() = (struct state){STATE_MAGIC, image.first, 0, 0, {0}};
        copy((uint64_t)state()->digest, (uint64_t)image.digest, sizeof image.digest);
    } else if (state()->running) {
        frame(KIND_CASE, state()->next, STATUS_CRASHED, 0, 0);
        state()->next++;
        state()->running = state()->reset = 0;
    }
    for (uint32_t index = 0; index < image.cases; index++) {
        const struct test_case *each = (const struct test_case *)next;
        next += sizeof *each + each->size;
        if (each->number < state()->next)
            continue;
        if (refused(each->reset))
            return;
        /* What software can't reset, the machine has to. */
        if (each->reset == RESET_NONE) {
            run(each);
        } else if (!state()->reset && (each->reset == RESET_MACHINE || unit_reset())) {
            state()->reset = 1;
            restart();
            frame(KIND_CASE, each->number, STATUS_NO_RESET, 0, 0);
        } else {
            state()->running = 1;
            carry_out(each);
        }
        state()->running = state()->reset = 0;
        state()->next = each->number + 1;
    }
    state()->magic = 0;
    frame(KIND_END, image.cases, 0, 0, 0);
}
