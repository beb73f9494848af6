/* heap_stub.h - see heap_stub.c */
#ifndef EDGED_TEST_HEAP_STUB_H
#define EDGED_TEST_HEAP_STUB_H

#include <stdint.h>

/* n: the n-th allocation from now fails; 0: none does. */
extern uint32_t heap_left;

#endif
