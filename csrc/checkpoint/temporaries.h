// Names of unfinished files, kept where a signal handler may read them.
#pragma once
#include <string>

namespace tersor::checkpoint {

// Owns a file name until release(): the destructor, and a process that ends through remove_temporaries(), unlink it.
class Temporary {
 public:
  Temporary() = default;
  explicit Temporary(std::string path);  // raises environment when the path, or their number, is above what is kept
  Temporary(Temporary&& other) noexcept;
  Temporary& operator=(Temporary&& other) noexcept;
  ~Temporary();
  const std::string& path() const noexcept { return path_; }
  void release() noexcept;  // the name is no longer ours

 private:
  std::string path_;
  int slot_ = -1;
};

// Async-signal-safe: for the handler of a signal that ends the process.
void remove_temporaries() noexcept;

}  // namespace tersor::checkpoint
