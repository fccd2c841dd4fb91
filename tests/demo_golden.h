/* demo_golden.h - what the demo model answers; `make demo-accept` wrote it. */
#define DEMO_RIGHT 167      /* actions of 200, exactly */
#define DEMO_HASH UINT64_C(0x3af7619dfe9179db)
