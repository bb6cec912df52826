// The two ends on the file system: an input mapped into memory, an output that appears whole or not at all.
#pragma once
#include <sys/stat.h>

#include <optional>
#include <span>
#include <string>

#include "checkpoint/pace.h"
#include "checkpoint/temporaries.h"
#include "container/writer.h"
#include "core/error.h"

namespace tersor::checkpoint {

std::string path_text(const std::string& path);  // as errors call it

// Runs f; what it finds wrong with the data is said of the file at `path`.
template <class F>
auto naming(const std::string& path, F&& f) {
  try {
    return f();
  } catch (const Error& error) {
    if (error.code() != Code::bad_data) throw;
    throw Error(Code::bad_data, path_text(path) + ": " + error.what());
  }
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int number = -1) noexcept : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();
  int number() const noexcept { return number_; }

 private:
  int number_;
};

class InputFile {
 public:
  // "-" is standard input; what is not a regular file is copied to an unnamed temporary file first.
  static InputFile open(const std::string& path, Pace& pace);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;
  ~InputFile();

  std::span<const uint8_t> bytes() const noexcept { return bytes_; }
  const struct stat& status() const noexcept { return status_; }  // of the file that was named, not of its copy
  void expect_sequential() const noexcept;

 private:
  InputFile() = default;
  std::span<const uint8_t> bytes_;
  struct stat status_{};
};

class OutputFile final : public container::Sink {
 public:
  // Opens a temporary name beside `path`, or what is there already if that is a pipe or device; "-" is standard
  // output. input: the file that must not be overwritten and whose mode is kept, if there is one.
  OutputFile(const std::string& path, const InputFile* input, const Options& options, Pace& pace);

  bool seekable() const noexcept { return seekable_; }
  // A pipe waits for its reader: only the calling thread, which a signal can wake, writes to it.
  bool blocks() const noexcept { return blocks_; }
  void write(std::span<const uint8_t> bytes) override;
  void write_at(uint64_t offset, std::span<const uint8_t> bytes);  // any thread; seekable outputs only
  void commit();                                                   // synced, renamed, the folder synced

 private:
  void fail_write() const;
  std::string path_;
  FileDescriptor file_;
  Temporary temporary_;
  std::optional<mode_t> mode_;
  bool force_, seekable_ = false, blocks_ = true;
  uint64_t written_ = 0;
  Pace& pace_;
};

}  // namespace tersor::checkpoint
