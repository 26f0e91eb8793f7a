/*
 * The client of corosync in the measurements: one member of a process group, as the Python client
 * of bench/ring_client.py. The lines it reads and writes are told in bench/client.py.
 *
 * The prototypes are our own, so that no headers of corosync are needed: those of libcpg.so.4.
 */

#define _GNU_SOURCE
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#define CS_OK 1
#define CS_ERR_TRY_AGAIN 6
#define CS_DISPATCH_ALL 2
#define CPG_TYPE_AGREED 2
#define CPG_NAME_SIZE_MAX 128
#define CPG_MEMBERS_MAX 128

struct cpg_name {
    uint32_t length;
    char value[CPG_NAME_SIZE_MAX];
};

struct cpg_address {
    uint32_t nodeid;
    uint32_t pid;
    uint32_t reason;
};

typedef uint64_t cpg_handle_t;
typedef void (*cpg_deliver_fn_t)(cpg_handle_t, const struct cpg_name *, uint32_t, uint32_t, void *,
                                 size_t);
typedef void (*cpg_confchg_fn_t)(cpg_handle_t, const struct cpg_name *, const struct cpg_address *,
                                 size_t, const struct cpg_address *, size_t,
                                 const struct cpg_address *, size_t);

struct cpg_callbacks {
    cpg_deliver_fn_t deliver;
    cpg_confchg_fn_t confchg;
};

int cpg_initialize(cpg_handle_t *, struct cpg_callbacks *);
int cpg_finalize(cpg_handle_t);
int cpg_fd_get(cpg_handle_t, int *);
int cpg_dispatch(cpg_handle_t, int);
int cpg_join(cpg_handle_t, const struct cpg_name *);
int cpg_mcast_joined(cpg_handle_t, int, const struct iovec *, unsigned int);

#define GROUP "bench"
#define SENDERS_MAX 64
#define SIZE_MAX_BYTES (1 << 20)
#define BURST_MESSAGES 64 /* sent between two looks at what was delivered */
#define RETRY_MS 1        /* after flow control refused */
#define DRAIN_NS 30000000000ULL
#define SAMPLES_MAX 1000000

struct header { /* as HEADER of bench/ring_client.py */
    uint32_t run;
    uint16_t sender;
    uint16_t last;
    uint64_t serial;
    uint64_t called_ns;
    uint64_t unused;
} __attribute__((packed));

static struct {
    uint32_t run;
    uint32_t size;
    uint32_t rate;
    uint64_t begin_ns;
    uint64_t from_ns;
    uint64_t end_ns;
    unsigned senders;
    unsigned index;
} command;

static cpg_handle_t handle;
static int descriptor;
static size_t members;
static uint64_t expected[SENDERS_MAX];
static unsigned last_count;
static uint64_t sent, received, counted, refused, sample_count;
static uint64_t samples[SAMPLES_MAX];
static char filler[SIZE_MAX_BYTES];
static char wrong[128];

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static void fail(const char *what, int status)
{
    printf("error=%s status=%d\n", what, status);
    exit(1);
}

static void on_deliver(cpg_handle_t h, const struct cpg_name *group, uint32_t node, uint32_t pid,
                       void *message, size_t length)
{
    const struct header *header = message;
    uint64_t now_ns = monotonic_ns();

    (void)h, (void)group, (void)node, (void)pid;
    if (length != command.size || header->run != command.run || header->sender >= command.senders ||
        header->serial != expected[header->sender]) {
        if (!wrong[0])
            snprintf(wrong, sizeof wrong, "run:%u,sender:%u,serial:%llu", header->run,
                     header->sender, (unsigned long long)header->serial);
        return;
    }
    expected[header->sender]++;
    received++;
    last_count += header->last;
    if (command.from_ns <= now_ns && now_ns < command.end_ns) {
        counted++;
        if (header->sender == command.index && sample_count < SAMPLES_MAX)
            samples[sample_count++] = now_ns - header->called_ns;
    }
}

static void on_confchg(cpg_handle_t h, const struct cpg_name *group,
                       const struct cpg_address *list, size_t count,
                       const struct cpg_address *left, size_t left_count,
                       const struct cpg_address *joined, size_t joined_count)
{
    (void)h, (void)group, (void)list, (void)left, (void)left_count, (void)joined;
    (void)joined_count;
    members = count;
}

static void dispatch(uint64_t wait_ns)
{
    struct pollfd fd = {.fd = descriptor, .events = POLLIN};
    struct timespec wait = {wait_ns / 1000000000ULL, wait_ns % 1000000000ULL};

    if (ppoll(&fd, 1, &wait, NULL) > 0) {
        int status = cpg_dispatch(handle, CS_DISPATCH_ALL);
        if (status != CS_OK && status != CS_ERR_TRY_AGAIN)
            fail("dispatch", status);
    }
}

static bool send_one(uint64_t called_ns, uint16_t last)
{
    struct header header = {command.run, (uint16_t)command.index, last, sent, called_ns, 0};
    struct iovec parts[2] = {{&header, sizeof header}, {filler, command.size - sizeof header}};
    int status = cpg_mcast_joined(handle, CPG_TYPE_AGREED, parts, 2);

    if (status == CS_ERR_TRY_AGAIN) {
        refused++;
        return false;
    }
    if (status != CS_OK)
        fail("mcast", status);
    sent++;
    return true;
}

static void send_open(void)
{
    while (monotonic_ns() < command.end_ns) {
        uint64_t wait_ns = 0;
        for (int i = 0; i < BURST_MESSAGES; i++)
            if (!send_one(monotonic_ns(), 0)) {
                wait_ns = RETRY_MS * 1000000ULL;
                break;
            }
        dispatch(wait_ns);
    }
}

static void send_closed(void)
{
    while (monotonic_ns() < command.end_ns) {
        if (expected[command.index] == sent)
            send_one(monotonic_ns(), 0);
        dispatch(RETRY_MS * 1000000ULL);
    }
}

static void send_paced(void)
{
    uint64_t now_ns;

    while ((now_ns = monotonic_ns()) < command.end_ns) {
        uint64_t due_ns = command.begin_ns + sent * 1000000000ULL / command.rate;
        if (due_ns > now_ns)
            dispatch(due_ns - now_ns);
        else if (!send_one(due_ns, 0))
            dispatch(RETRY_MS * 1000000ULL);
        else
            dispatch(0);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void finish(bool sender)
{
    while (last_count < command.senders && !wrong[0]) {
        if (monotonic_ns() > command.end_ns + DRAIN_NS) {
            printf("error=incomplete received=%llu\n", (unsigned long long)received);
            return;
        }
        if (sender && monotonic_ns() >= command.end_ns && send_one(command.end_ns, 1))
            sender = false;
        dispatch(sender ? RETRY_MS * 1000000ULL : 50000000ULL);
    }
    if (wrong[0]) {
        printf("error=order %s\n", wrong);
        return;
    }
    qsort(samples, sample_count, sizeof samples[0], compare);
    printf("sent=%llu counted=%llu received=%llu refused=%llu p50_ns=%llu p99_ns=%llu\n",
           (unsigned long long)sent, (unsigned long long)counted, (unsigned long long)received,
           (unsigned long long)refused,
           (unsigned long long)(sample_count ? samples[sample_count / 2] : 0),
           (unsigned long long)(sample_count ? samples[sample_count * 99 / 100] : 0));
}

static void run(const char *line)
{
    char mode[16];
    unsigned long long begin_ns, from_ns, end_ns;
    int found = sscanf(line, "run %u %15s %u %u %llu %llu %llu %u %u", &command.run, mode,
                       &command.size, &command.rate, &begin_ns, &from_ns, &end_ns,
                       &command.senders, &command.index);

    if (found != 9 || command.size < sizeof(struct header) || command.size > SIZE_MAX_BYTES ||
        command.senders > SENDERS_MAX)
        fail("command", found);
    command.begin_ns = begin_ns;
    command.from_ns = from_ns;
    command.end_ns = end_ns;
    memset(expected, 0, sizeof expected);
    sent = received = counted = refused = sample_count = 0;
    last_count = 0;
    wrong[0] = 0;
    while (monotonic_ns() < command.begin_ns)
        dispatch(1000000);
    if (!strcmp(mode, "open"))
        send_open();
    else if (!strcmp(mode, "closed"))
        send_closed();
    else if (!strcmp(mode, "paced"))
        send_paced();
    finish(strcmp(mode, "receive") != 0);
}

int main(void)
{
    struct cpg_callbacks callbacks = {on_deliver, on_confchg};
    struct cpg_name group = {.length = sizeof GROUP - 1, .value = GROUP};
    char line[256];
    int status;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if ((status = cpg_initialize(&handle, &callbacks)) != CS_OK)
        fail("initialize", status);
    while ((status = cpg_join(handle, &group)) == CS_ERR_TRY_AGAIN)
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    if (status != CS_OK)
        fail("join", status);
    if ((status = cpg_fd_get(handle, &descriptor)) != CS_OK)
        fail("descriptor", status);
    while (fgets(line, sizeof line, stdin)) {
        unsigned count;
        if (sscanf(line, "members %u", &count) == 1) {
            while (members < count)
                dispatch(50000000);
            printf("members=%zu\n", members);
        } else {
            run(line);
        }
    }
    cpg_finalize(handle);
    return 0;
}
