// Eight numbers at a time. Reference: stride_scores_scalar.cpp, which it equals.
#define TERSOR_LEVEL avx2
#include "lossless/stride_scores_loop.h"
