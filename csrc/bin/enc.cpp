// tersor-enc: a file to .tsr, without Python. The same bytes as `tersor compress`.
#include "bin/door.h"

namespace {

constexpr tersor::bin::Door kDoor = {
    "tersor-enc",
    "usage: tersor-enc [-1..-9] [-T threads] [-f] [--base B]... IN OUT\n"
    "Compresses IN (.safetensors, .npy, .npz, .pt, .gguf or any other file) to OUT, a .tsr; - is standard input or "
    "output.\n"
    "  -1..-9      faster..smaller, default -4\n"
    "  -T threads  default: all that this process may use\n"
    "  -f          overwrite OUT\n"
    "  --base B    code tensors against those of B: a file of tensors, a .tsr, a folder; OUT needs B again\n"
    "  -h -V       this help, the version\n"
    "Exit codes: 0 done, 1 data or environment, 2 usage, 130 interrupted.\n",
    true, false};

}  // namespace

int main(int argc, char** argv) {
  return tersor::bin::run(kDoor, argc, argv, [](const tersor::bin::Arguments& arguments) {
    return tersor::checkpoint::compress_file(arguments.names[0], arguments.names[1], arguments.options).damaged;
  });
}
