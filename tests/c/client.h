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

#include "city.h"
#include "key.h"
#include "state.h"

#define CLIENT_SLOTS 7u /* of the vector file (tests/c/deals.py) */
#define CLIENT_FORGED_SLOT 6u
#define CLIENT_CLAIMED_NS 9u
#define CLIENT_WINDOW_HANDLE 7

/** struct client - both applications and what lies outside; one exists */
struct client {
    struct key_app *key;
    struct eval *eval;
    /* what the honest client does next */
    uint32_t placement;
    uint32_t persons;
    bool forged;  /* load the same model, signed by who is not its owner */
    bool ahead;   /* prepare U first */
    bool window;  /* bulk data by the window */
    bool again;   /* resubmit a refused clip */
    /* the last exchange */
    uint8_t request[EDGED_MESSAGE_BYTES];
    uint8_t answer[EDGED_MESSAGE_BYTES];
    size_t request_bytes, answer_bytes;
    enum edged_status status;
    bool faults; /* seals may fail: a number that sealed nothing is then lost */
    uint32_t observations, failures; /* clips so far */
    void (*around)(bool inside); /* called before and after the application runs: faults are its alone */
    void (*record)(const uint8_t *request, size_t size_bytes, int handle); /* sees every request */
};

extern struct client client;

/* Read the vector file's package once. */
void client_init(void);

/* Fresh applications with keys in their slots, a fresh random source. */
void client_start(uint64_t seed);
void client_stop(void);

/* The evaluation application was killed; another one. */
void client_restart(void);

/*
 * Send one message; stops the test where the answer breaks the wire's rules, or a record
 * is not, byte for byte, what the city expects (city.h).
 */
void client_send(const uint8_t *request, size_t size_bytes, int handle);

/* A request with its header. */
void client_request(uint16_t cmd, const void *body, size_t size_bytes, int handle);

/* Build what is due into client.request; returns the handle to send with it, or -1. */
int client_due(void);

/* Send what is due, at most so many messages, until the state is one of `states`. */
void client_advance(uint32_t messages, uint32_t states);

/* From any state: load, agree, open a session, evaluate a clip of client.persons. */
void client_evaluate(void);

/* A clip of which one bit comes back wrong, where it is masked: to its refusal. */
void client_spoil(void);

/* The vector file's key of one slot into another, under the id of a third. */
void client_put_slot(uint32_t from, uint32_t to, uint32_t id);

#endif
