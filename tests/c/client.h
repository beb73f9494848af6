/*
 * client.h - an honest client of both applications, in their own process: it sends
 * whatever the evaluation application waits for next, keeps what the accelerator
 * must hold, and judges every answer. Its package, keys, clips and the results that
 * they must give come from the vector file.
 *
 * It reads the application's state instead of keeping its own, so that it can go on
 * after any message that somebody else sent in between.
 */
#ifndef EDGED_TEST_CLIENT_H
#define EDGED_TEST_CLIENT_H

#include "key.h"
#include "state.h"

#define CLIENT_DATA_SLOT 1u
#define CLIENT_ALERT_SLOT 2u
#define CLIENT_WINDOW_HANDLE 7

/** struct client - both applications and what lies outside; one exists */
struct client {
    struct key_app *key;
    struct eval *eval;
    /* what the honest client does next */
    uint32_t placement;
    uint32_t persons;
    bool ahead;   /* prepare U first */
    bool window;  /* bulk data by the window */
    bool again;   /* resubmit a refused clip */
    /* the last exchange */
    uint8_t request[EDGED_MESSAGE_BYTES];
    uint8_t answer[EDGED_MESSAGE_BYTES];
    size_t request_bytes, answer_bytes;
    enum edged_status status;
    uint32_t observations, failures; /* records so far */
    void (*around)(bool inside); /* called before and after the application runs: faults are its alone */
    void (*record)(const uint8_t *request, size_t size_bytes, int handle); /* sees every request */
};

extern struct client client;

/* Read the vector file's package once. */
void client_init(void);

/* Fresh applications with keys in their slots, a fresh random source. */
void client_start(uint64_t seed);
void client_stop(void);

/*
 * Send one message; stops the test where the answer breaks the wire's rules, or is an
 * observation with scores that are not those of its clip.
 */
void client_send(const uint8_t *request, size_t size_bytes, int handle);

/* A request with its header. */
void client_request(uint16_t cmd, const void *body, size_t size_bytes, int handle);

/* Build what is due into client.request; returns the handle to send with it, or -1. */
int client_due(void);

/* Send what is due, at most so many messages, until the state is one of `states`. */
void client_advance(uint32_t messages, uint32_t states);

/* From any state: load, open a session, evaluate a clip of client.persons. */
void client_evaluate(void);

#endif
