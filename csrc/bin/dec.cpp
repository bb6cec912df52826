// tersor-dec: a .tsr back to the file it was made from, or its verification, without Python.
#include "bin/door.h"

namespace {

constexpr tersor::bin::Door kDoor = {
    "tersor-dec",
    "usage: tersor-dec [-T threads] [-f] [--base B]... [--keep-going] IN OUT\n"
    "       tersor-dec [-T threads] [--base B]... --verify IN\n"
    "Restores OUT from IN, a .tsr; - is standard input or output. --verify checks every chunk and every hash.\n"
    "  -T threads  default: all that this process may use\n"
    "  -f          overwrite OUT\n"
    "  --base B    what IN is coded against: a file of tensors, a .tsr, a folder\n"
    "  --keep-going  damaged chunks become zeros, the rest is saved; the exit code is 1\n"
    "  -h -V       this help, the version\n"
    "Exit codes: 0 done, 1 data or environment, 2 usage, 130 interrupted.\n",
    false, true};

}  // namespace

int main(int argc, char** argv) {
  return tersor::bin::run(kDoor, argc, argv, [](const tersor::bin::Arguments& arguments) {
    using namespace tersor::checkpoint;
    if (!arguments.verify) return decompress_file(arguments.names[0], arguments.names[1], arguments.options).damaged;
    auto options = arguments.options;
    options.keep_going = true;  // to name every bad chunk
    return verify_file(arguments.names[0], options).damaged;
  });
}
