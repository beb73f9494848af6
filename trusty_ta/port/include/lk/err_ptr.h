/* lk/err_ptr.h - an error code carried by a pointer: the top page is no object. */
#ifndef EDGED_LK_ERR_PTR_H
#define EDGED_LK_ERR_PTR_H

#include <stdbool.h>
#include <stdint.h>

#define ERR_PTR_MAX 4095

static inline void *ERR_PTR(long error) {
    return (void *)(intptr_t)error;
}

static inline long PTR_ERR(const void *p) {
    return (long)(intptr_t)p;
}

static inline bool IS_ERR(const void *p) {
    return (uintptr_t)p >= (uintptr_t)-ERR_PTR_MAX;
}

#endif
