// Prints the hash of tables: test_table_set.py compiles it with other compilers and flags than the library's.
#include "table_hash.h"

#include <cstdio>

int main() { std::printf("%016llx\n", static_cast<unsigned long long>(tersor::entropy::table_hash())); }
