// What tersor-enc and tersor-dec share: arguments, signals, exit codes.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace tersor::bin {

struct Arguments {
  checkpoint::Options options;
  bool verify = false;
  std::vector<std::string> names;
};

struct Door {
  const char* name;
  const char* usage;
  bool has_levels, has_verify;
};

// What is damaged, a line each.
using Work = std::function<std::vector<std::string>(const Arguments&)>;

// Parses, runs `work`, and returns the exit code: 0 done; 1 data or environment; 2 usage; 128 + signal, 130 for Ctrl-C.
int run(const Door& door, int argc, char** argv, const Work& work);

}  // namespace tersor::bin
