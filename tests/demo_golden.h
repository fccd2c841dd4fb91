/* demo_golden.h - what the demo model answers; `make demo-accept` wrote it. */
#define DEMO_RIGHT 197      /* actions of 200, exactly */
#define DEMO_HASH UINT64_C(0x632c93502c582f04)
