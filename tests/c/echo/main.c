/*
 * main.c - an application that lets tests/test_host_port.py reach every promise of
 * the host port. The first byte of a message says what to do; the answer is the
 * message itself for `e`, else the byte 1 (done) or 0 (refused), or a struct.
 */
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sys/mman.h>

#include <lib/tipc/tipc_srv.h>
#include <lk/err_ptr.h>
#include <uapi/err.h>

#include "port.h"
#include "service.h"

/* 23ece6ba-caee-43e0-b19c-f9f1abfdb8e6: a peer that only the test claims to be */
static const struct uuid friend_uuid = {
    0x23ece6ba, 0xcaee, 0x43e0, {0xb1, 0x9c, 0xf9, 0xf1, 0xab, 0xfd, 0xb8, 0xe6}};

static struct service_request request;
static uint8_t answer[EDGED_MESSAGE_BYTES];
static uint64_t disconnects;

static uint64_t argument(void) {
    uint64_t v = 0;
    memcpy(&v, request.bytes + 1, request.size_bytes < 9 ? 0 : sizeof(v));
    return v;
}

/* Allocated, written over its whole length, freed. */
static bool use_heap(size_t size_bytes) {
    volatile uint8_t *p = malloc(size_bytes);
    if (p == NULL)
        return false;
    for (size_t i = 0; i < size_bytes; i++)
        p[i] = (uint8_t)i;
    free((void *)(uintptr_t)p);
    return true;
}

/* Aligned, grown, cleared: the other names of malloc keep their promises. */
static bool use_heap_oddly(void) {
    uint8_t *a = aligned_alloc(64, 100);
    uint8_t *b = aligned_alloc(4096, 4096);
    uint8_t *c = calloc(10, 10);
    bool good = a != NULL && b != NULL && c != NULL && (uintptr_t)a % 64 == 0 && (uintptr_t)b % 4096 == 0;
    for (size_t i = 0; good && i < 100; i++)
        good = c[i] == 0;
    if (good) {
        memset(a, 0x5a, 100);
        memset(b, 0x5b, 4096);
        uint8_t *grown = realloc(a, 5000);
        good = grown != NULL && grown[0] == 0x5a && grown[99] == 0x5a;
        a = grown != NULL ? grown : a;
        volatile size_t half = SIZE_MAX / 2; /* hidden from the compiler's own checks */
        good = good && calloc(half, 3) == NULL && malloc(half) == NULL;
    }
    free(a);
    free(b);
    free(c);
    return good;
}

/* Adds one to the first byte of the window. */
static bool use_window(size_t size_bytes) {
    uint8_t *base = port_window_map(request.handle, size_bytes);
    if (base == NULL)
        return false;
    base[0]++;
    port_window_unmap(base, size_bytes);
    return true;
}

/* Touches so much stack, which the compiler must not notice is pointless. */
static __attribute__((noinline)) uint8_t use_stack_16k(void) {
    volatile uint8_t block[16384];
    for (size_t i = 0; i < sizeof(block); i += 64)
        block[i] = (uint8_t)i;
    return block[64];
}

/* What is after the letter goes to the key application: {i64 rc, u8 reconnected, answer}. */
static size_t call_key(void) {
    static uint8_t question[EDGED_MESSAGE_BYTES];
    bool reconnected;

    memcpy(question, request.bytes + 1, request.size_bytes - 1);
    int64_t rc = port_key_call(question, request.size_bytes - 1, answer + 9, sizeof(answer) - 9, &reconnected);
    memcpy(answer, &rc, sizeof(rc));
    answer[8] = reconnected;
    return 9 + (rc < 0 ? 0 : (size_t)rc);
}

static size_t reply(bool done) {
    answer[0] = done;
    return 1;
}

static size_t act(void) {
    struct edged_memory memory = {0};

    switch (request.size_bytes == 0 ? 0 : request.bytes[0]) {
    case 'a':
        return reply(use_heap((size_t)argument()));
    case 'A':
        return reply(use_heap_oddly());
    case 'c':
        return call_key();
    case 'd':
        memcpy(answer, &disconnects, sizeof(disconnects));
        return sizeof(disconnects);
    case 'f':
        answer[0] = 'f';
        return sizeof(answer); /* the largest answer */
    case 'h':
        port_measurement(answer);
        return 32;
    case 'k':
        return port_device_key("test", answer) == 0 ? 32 : reply(false);
    case 'm':
        port_memory(&memory);
        memcpy(answer, &memory, sizeof(memory));
        return sizeof(memory);
    case 'o':
        return reply(open("/dev/null", O_RDONLY) >= 0); /* no answer: it dies */
    case 's':
        return reply(use_stack_16k() == 64);
    case 'w':
        return reply(request.handle != INVALID_IPC_HANDLE && use_window((size_t)argument()));
    default:
        memcpy(answer, request.bytes, request.size_bytes);
        if (request.size_bytes == 0)
            return reply(true); /* an empty message is one, too */
        return request.size_bytes;
    }
}

static int on_connect(const struct tipc_port *port, handle_t chan, const struct uuid *peer, void **ctx_p) {
    (void)port;
    (void)chan;
    (void)peer;
    *ctx_p = &disconnects;
    return NO_ERROR;
}

static int on_message(const struct tipc_port *port, handle_t chan, void *ctx) {
    (void)port;
    (void)ctx;
    int rc = service_receive(chan, 1, &request);
    if (rc < 0)
        return rc;
    if (request.refusal != EDGED_OK)
        return service_answer(chan, answer, service_refuse(&request, answer));
    bool takes_handle = request.size_bytes != 0 && request.bytes[0] == 'w';
    if (!takes_handle && request.handle != INVALID_IPC_HANDLE)
        close(request.handle);
    return service_answer(chan, answer, act());
}

static void on_channel_cleanup(void *ctx) {
    ++*(uint64_t *)ctx;
}

int main(void) {
    static const struct uuid *link_uuids[] = {&friend_uuid};
    static const struct tipc_port_acl acl = {.flags = IPC_PORT_ALLOW_NS_CONNECT};
    static const struct tipc_port_acl link_acl = {
        .flags = IPC_PORT_ALLOW_TA_CONNECT, .uuid_num = 1, .uuids = link_uuids};
    static const struct tipc_port port = {
        .name = "com.edged.echo", .msg_max_size = EDGED_MESSAGE_BYTES, .msg_queue_len = 4, .acl = &acl};
    static const struct tipc_port link_port = {
        .name = "com.edged.echo.link", .msg_max_size = EDGED_MESSAGE_BYTES, .msg_queue_len = 1, .acl = &link_acl};
    static const struct tipc_srv_ops ops = {
        .on_connect = on_connect, .on_message = on_message, .on_channel_cleanup = on_channel_cleanup};

    struct tipc_hset *hset = tipc_hset_create();
    if (IS_ERR(hset))
        return (int)PTR_ERR(hset);
    int rc = tipc_add_service(hset, &port, 1, 1, &ops);
    if (rc == NO_ERROR)
        rc = tipc_add_service(hset, &link_port, 1, 1, &ops);
    if (rc < 0)
        return rc;
    return tipc_run_event_loop(hset);
}
