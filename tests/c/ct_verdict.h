/* ct_verdict.h - see ct_verdict.c */
#ifndef EDGED_TEST_CT_VERDICT_H
#define EDGED_TEST_CT_VERDICT_H

/* Decide on secret scores, clip after clip; stops where a decision is wrong, or known. */
void ct_verdict(void);

#endif
