/*
 * ct.h - the values that may be told although they come from secrets. Under
 * tests/c/ct_test.c every secret is undefined memory to valgrind, which then
 * reports any branch or index that depends on one; ct_public marks the few
 * results that are meant to be known.
 */
#ifndef EDGED_CT_H
#define EDGED_CT_H

#include <stdint.h>

#ifdef EDGED_CT_CHECK
#include <valgrind/memcheck.h>
#endif

static inline int ct_public(int outcome) {
#ifdef EDGED_CT_CHECK
    VALGRIND_MAKE_MEM_DEFINED(&outcome, sizeof(outcome));
#endif
    return outcome;
}

#endif
