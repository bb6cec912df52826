// The reference: whatever the compiler's own level is.
#define TERSOR_LEVEL scalar
#include "lossless/stride_scores_loop.h"
