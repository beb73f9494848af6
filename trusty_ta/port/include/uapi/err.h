/*
 * uapi/err.h - error codes of the Trusty API. Written from shared/TRUSTY.md for
 * builds without the platform's tree, which brings its own.
 */
#ifndef EDGED_TRUSTY_ERR_H
#define EDGED_TRUSTY_ERR_H

#define NO_ERROR 0
#define ERR_GENERIC (-1)
#define ERR_NOT_FOUND (-2)
#define ERR_NOT_READY (-3)
#define ERR_NO_MSG (-4)
#define ERR_NO_MEMORY (-5)
#define ERR_NOT_VALID (-7)
#define ERR_INVALID_ARGS (-8)
#define ERR_NOT_ENOUGH_BUFFER (-9)
#define ERR_TIMED_OUT (-13)
#define ERR_ALREADY_EXISTS (-14)
#define ERR_CHANNEL_CLOSED (-15)
#define ERR_NOT_ALLOWED (-17)
#define ERR_BAD_PATH (-18)
#define ERR_IO (-20)
#define ERR_TOO_BIG (-24)
#define ERR_BAD_STATE (-30)
#define ERR_BAD_LEN (-31)
#define ERR_BUSY (-32)
#define ERR_NO_RESOURCES (-40)
#define ERR_BAD_HANDLE (-41)
#define ERR_ACCESS_DENIED (-42)

#endif
