/* For a repository of your own, put the file itself here. */
#include "../../../../../ksllm.h"
