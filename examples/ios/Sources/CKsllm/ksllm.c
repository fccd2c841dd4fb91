/* For a repository of your own, put the file itself here, and ksllm.h. */
#include "../../../../ksllm.c"
